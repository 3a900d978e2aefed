"""A server with OpenAI's /v1/audio/speech, and servers that do other things."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from lipwire.domain import DeadlineExceeded, InvalidInput, Unavailable
from lipwire.speech.openaivoice import OpenAiVoice

Answer = Callable[[BaseHTTPRequestHandler], None]


def sound(samples: int = 4800) -> bytes:
    return np.full(samples, 8192, "<i2").tobytes()


def answer_with(
    body: bytes = b"", status: int = 200, kind: str = "audio/pcm", **headers: str
) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@dataclass
class Server:
    """What it was asked, and what it answers."""

    url: str = ""
    answer: Answer = field(default_factory=lambda: answer_with(sound()))
    asked: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    known = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known.asked.append(json.loads(body))
            known.paths.append(self.path)
            known.keys.append(self.headers.get("Authorization"))
            known.answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        known.url = f"http://127.0.0.1:{http.server_port}/v1"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield known
        http.shutdown()
        thread.join()


def voice_of(url: str, *, timeout_s: float = 60.0, **others: Any) -> OpenAiVoice:
    return OpenAiVoice(url=url, model="tts-1", voice_name="alloy", timeout_s=timeout_s, **others)


def test_it_is_asked_sentence_by_sentence(server: Server) -> None:
    pieces = voice_of(server.url, api_key="hush", speed=1.25).say("One. Two.")
    assert server.asked == []
    first = next(pieces)
    assert (first.text, first.rate_hz) == ("One.", 24_000)
    assert np.all(first.pcm == 0.25)
    assert server.asked == [
        {
            "model": "tts-1",
            "voice": "alloy",
            "input": "One.",
            "speed": 1.25,
            "response_format": "pcm",
        }
    ]
    assert (server.paths, server.keys) == (["/v1/audio/speech"], ["Bearer hush"])
    rest = list(pieces)
    assert [piece.text for piece in rest if piece.text] == ["Two."]
    assert len(first.pcm) + sum(len(piece.pcm) for piece in rest) == 2 * 4800


@pytest.mark.parametrize("end", ["", "/", "/audio/speech"])
def test_the_url_may_be_written_in_each_way(server: Server, end: str) -> None:
    list(voice_of(server.url + end).say("One."))
    assert (server.paths, server.keys) == (["/v1/audio/speech"], [None])


def test_sound_is_given_as_it_comes(server: Server) -> None:
    more = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "audio/pcm;rate=16000")
        handler.end_headers()
        handler.wfile.write(sound(3000) + b"\x00")  # half a sample
        handler.wfile.flush()
        assert more.wait(60)
        handler.wfile.write(b"\x20" + sound(10))

    server.answer = slow
    pieces = voice_of(server.url).say("One.")
    first = next(pieces)
    assert (first.text, first.rate_hz, len(first.pcm)) == ("One.", 16_000, 3000)
    more.set()
    (rest,) = pieces
    assert (rest.text, len(rest.pcm)) == ("", 11)
    assert np.all(rest.pcm == 0.25)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            answer_with(b'{"error": {"message": "no\\nsuch voice"}}', 400, "application/json"),
            "answers with status 400: no such voice",
        ),
        (answer_with(b'{"detail": "busy"}', 503, "application/json"), "status 503: busy"),
        (answer_with(b"[1]", 500, "application/json"), r"status 500: \[1\]"),
        (answer_with(b"<html>\x1b" + b"x" * 9999, 502), r"status 502: <html>\\x1bxxx"),
        (answer_with(b"{}", 401), "refuses the API key: status 401"),
        (answer_with(b"", 302, Location="http://127.0.0.1:9/"), "answers with status 302: "),
        (answer_with(b"ID3", kind="audio/mpeg"), "answers with audio/mpeg; allowed is audio/pcm"),
        (answer_with(b"RIFFxxxx"), "something else than bare samples"),
        (answer_with(b'{"error": 1}'), "something else than bare samples"),
        (answer_with(bytes(2 * 24_000 * 181)), "over 8,640,000 bytes for a sentence"),
        (lambda handler: None, "cannot be had: "),
    ],
)
def test_another_answer_is_one_line(server: Server, answer: Answer, said: str) -> None:
    server.answer = answer
    with pytest.raises(Unavailable, match=said) as refused:
        list(voice_of(server.url, api_key="hush-hush").say("One."))
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()
    assert "hush" not in str(refused.value)


def test_a_server_that_does_not_answer_is_not_waited_for(server: Server) -> None:
    done = threading.Event()
    server.answer = lambda handler: assert_set(done)
    with pytest.raises(DeadlineExceeded, match=r"does not answer; allowed are 0.2 s"):
        list(voice_of(server.url, timeout_s=0.2).say("One."))
    done.set()


def assert_set(event: threading.Event) -> None:
    assert event.wait(60)


def test_where_nobody_listens_it_is_said(server: Server) -> None:
    with pytest.raises(Unavailable, match=r"at 127.0.0.1 cannot be had: Connection refused"):
        list(voice_of("http://127.0.0.1:1/v1").say("One."))


def test_what_cannot_be_said_is_refused_before_anybody_is_asked(server: Server) -> None:
    with pytest.raises(InvalidInput, match="nothing to say"):
        voice_of(server.url).say("...")
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    ["ftp://x/v1", "x", "http://", "http://x:0", "http://x:99999", "http://u:p@x", "http://x?a"],
)
def test_a_url_is_one_of_http(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"such as https://api\.example\.org/v1") as no:
        voice_of(url)
    assert "u:p" not in str(no.value)


@pytest.mark.parametrize("key", ["a b", "a\nb", "é"])
def test_a_wrong_key_is_not_shown(key: str) -> None:
    with pytest.raises(InvalidInput, match=r"^api_key has blanks or characters that no key has$"):
        voice_of("http://x", api_key=key)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answer = answer_with(status=307, Location=f"{server.url}/elsewhere")
    with pytest.raises(Unavailable, match="answers with status 307"):
        list(voice_of(server.url, api_key="hush").say("One."))
    assert server.paths == ["/v1/audio/speech"]


def test_a_link_local_address_behind_a_name_is_not_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(Unavailable, match=r"is 169\.254\.169\.254, a link-local address"):
        list(voice_of("http://voice.example.org/v1").say("One."))
