"""The voice of a server that speaks the protocol of OpenAI's ``/v1/audio/speech``: of OpenAI, or of
one of the many programs that offer the same."""

import json
import re
from collections.abc import Generator, Iterator
from http.client import HTTPException, HTTPResponse
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from lipwire.audio import from_int16
from lipwire.domain import DeadlineExceeded, InvalidInput, Unavailable
from lipwire.domain.wording import one_line
from lipwire.security.outgoing import Times, requested
from lipwire.speech.sentences import sentences
from lipwire.speech.synthesis import SpokenPiece

_RATE_HZ: Final = 24_000
"""Of ``response_format`` pcm, where the answer does not name another."""
_PIECE_BYTES: Final = 4_800
"""100 ms; less is waited for, so that the first is heard soon."""
_MOST_BYTES: Final = 2 * _RATE_HZ * 180
"""Of one sentence: three minutes."""
_MOST_S: Final = 300.0
"""For one sentence, however steadily it comes."""
_MOST_ERROR_BYTES: Final = 16 * 1024
_PCM: Final = ("", "audio/pcm", "audio/l16", "audio/x-pcm", "audio/raw", "application/octet-stream")
_RATE: Final = re.compile(r"rate=\"?(\d{4,6})")
_TOLD_CHARACTERS: Final = 200
"""Of what a server says, in a message."""
_CONTAINERS: Final = (b"RIFF", b"ID3", b"OggS", b"fLaC", b"{")
"""How answers begin that are no bare samples, whatever they say they are."""


class OpenAiVoice:
    """A ``Voice`` that asks a server with OpenAI's protocol ``/v1/audio/speech``. A connection is
    made for each sentence; its sound is given as it comes. For use by many threads."""

    name: Final = "openai"

    def __init__(
        self,
        *,
        url: str,
        model: str,
        voice_name: str,
        api_key: str | None = None,
        speed: float = 1.0,
        timeout_s: float = 10.0,
    ) -> None:
        """``url`` is the server's base URL, with /v1 at its end, or the full one, with
        /v1/audio/speech. ``model``, ``voice_name`` and ``speed``, a factor, are sent to the server.
        ``api_key`` is sent to it, and nowhere else; None sends none. Connecting, and each wait for
        more of the answer, may take ``timeout_s`` seconds; a sentence 300 seconds at most.
        Redirects are not followed, and proxies that the environment names are not used. Nothing is
        sent yet. Raises InvalidInput where ``url`` is not of http or https or has a user, a query
        or a fragment, and for a key with blanks or characters that no key has."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        wrong = parts.scheme not in ("http", "https") or not parts.hostname or port == 0
        if wrong or parts.username is not None or parts.query or parts.fragment:
            raise InvalidInput(
                f"url is {_without_user(url)!r}; allowed are such as https://api.example.org/v1"
            )
        assert parts.hostname is not None
        self._host = parts.hostname
        path = parts.path.rstrip("/")
        path = path if path.endswith("/audio/speech") else path + "/audio/speech"
        self._url = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        self._asked = {
            "model": model,
            "voice": voice_name,
            "speed": speed,
            "response_format": "pcm",
        }
        self._headers = {"Content-Type": "application/json", "Accept": "audio/pcm, */*;q=0.1"}
        if api_key:
            if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
                raise InvalidInput("api_key has blanks or characters that no key has")
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._timeout_s = timeout_s

    def prepare(self) -> None:
        """Do nothing: there is nothing to load, and the server is not asked."""

    def say(self, text: str) -> Generator[SpokenPiece, None, None]:
        """Return an iterator of the sound of ``text``, sentence by sentence, in pieces of 100 ms
        and more as they come; the server is asked for a sentence when its first piece is asked for.

        Raises InvalidInput at once where ``text`` has more than 10,000 characters or nothing to
        say; while it is iterated, Unavailable where the server cannot be reached, refuses, or
        answers with something else than samples or with more than three minutes for a sentence, and
        DeadlineExceeded where it does not answer within ``timeout_s`` seconds, or takes longer than
        300 for a sentence. Close the iterator where it is left half-way: that ends the connection.
        """
        return self._spoken(sentences(text))

    def _spoken(self, said: list[str]) -> Generator[SpokenPiece, None, None]:
        for sentence in said:
            begun = False
            for pcm, rate_hz in self._sound(sentence):
                yield SpokenPiece(from_int16(pcm), rate_hz, "" if begun else sentence)
                begun = True

    def _sound(self, sentence: str) -> Iterator[tuple[bytes, int]]:
        """Whole samples of 16 bits, and their rate."""
        body = json.dumps(self._asked | {"input": sentence}).encode()
        try:
            with requested(
                self._url,
                given_by="operator",
                times=Times(self._timeout_s, _MOST_S),
                method="POST",
                body=body,
                headers=self._headers,
            ) as answer:
                if answer.status != 200:
                    raise Unavailable(self._refused(answer))
                rate_hz = _rate_of(answer)
                for pcm in _pieces(answer):
                    yield pcm, rate_hz
        except TimeoutError:
            raise DeadlineExceeded(
                f"the voice at {self._host} does not answer; allowed are {self._timeout_s:g} s, and"
                f" {_MOST_S:g} s for a sentence"
            ) from None
        except (OSError, HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unavailable(
                f"the voice at {self._host} cannot be had: {one_line(why, _TOLD_CHARACTERS)}"
            ) from None

    def _refused(self, answer: HTTPResponse) -> str:
        """In one line, why there is no sound."""
        text = answer.read(_MOST_ERROR_BYTES).decode("utf-8", "replace")
        try:
            told = json.loads(text)
            told = told.get("error", told.get("detail", told))
            text = str(told.get("message", told)) if isinstance(told, dict) else str(told)
        except (ValueError, AttributeError):
            pass  # it is no JSON
        if answer.status in (401, 403):
            return f"the voice at {self._host} refuses the API key: status {answer.status}"
        told = one_line(text, _TOLD_CHARACTERS)
        return f"the voice at {self._host} answers with status {answer.status}: {told}"


def _rate_of(answer: HTTPResponse) -> int:
    """The rate of an answer's samples. Raises Unavailable where it is something else."""
    said = answer.headers.get("Content-Type", "").lower()
    kind = said.partition(";")[0].strip()
    if kind not in _PCM:
        raise Unavailable(
            f"the voice answers with {one_line(kind, _TOLD_CHARACTERS)}; allowed is audio/pcm"
        )
    found = _RATE.search(said)
    return int(found[1]) if found else _RATE_HZ


def _pieces(answer: HTTPResponse) -> Iterator[bytes]:
    """Whole samples, 100 ms and more at a time. Raises Unavailable where they are no samples, or
    too many."""
    kept = b""
    came = 0
    while data := answer.read1(1 << 16):
        if not came and data.startswith(_CONTAINERS):
            raise Unavailable("the voice answers with something else than bare samples")
        came += len(data)
        if came > _MOST_BYTES:
            raise Unavailable(
                f"the voice answers with over {_MOST_BYTES:,} bytes for a sentence; allowed are so"
                " many"
            )
        kept += data
        if len(kept) >= _PIECE_BYTES:
            whole = len(kept) // 2 * 2
            yield kept[:whole]
            kept = kept[whole:]
    if len(kept) >= 2:
        yield kept[: len(kept) // 2 * 2]


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", one_line(url, _TOLD_CHARACTERS))
