"""What a client has given a live session to say, and the session has not said yet.

Audio is told apart by its length: of each piece of speech the session says how much was spoken.
Texts are told apart by their captions, sentence by sentence.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.session.live import Caption, SpeechBegan, SpeechEnded

_ROUNDING_MS: Final = 5.0
"""By how much the length of a piece that a session tells may be off."""
_MOST_MS: Final = 180_000.0
"""How much audio is kept: more than a session buffers (a minute) and a connection. What is older
was said, or is silence of a microphone."""


@dataclass(frozen=True, slots=True)
class Audio:
    """``samples`` that were sent, (n, channels) int16, at ``rate_hz``."""

    samples: npt.NDArray[np.int16]
    rate_hz: int

    @property
    def ms(self) -> float:
        """How long it lasts, in milliseconds."""
        return len(self.samples) * 1000 / self.rate_hz

    def after(self, ms: float) -> "Audio":
        """Return the audio without its first ``ms`` milliseconds; empty where it is no longer than
        that."""
        return Audio(self.samples[round(ms * self.rate_hz / 1000) :], self.rate_hz)


@dataclass(frozen=True, slots=True)
class Text:
    """A text to be said, the ``number``-th that was sent on its connection, from 1."""

    text: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class EndOfSpeech:
    """The mark that the audio before it is a whole piece of speech."""


Given = Audio | Text | EndOfSpeech


class Unsaid:
    """What was given to a session and not said, in its order. Iterating gives it (a copy, so that
    it may be changed meanwhile), and ``len()`` is how many items there are. Not thread-safe.

    Call ``give`` with what is sent to the session, and ``take`` with each event that the session
    sends: what is left is what has to be sent to another session that goes on with this one. Of
    audio the latest three minutes are kept.
    """

    def __init__(self) -> None:
        self._given: deque[Given] = deque()
        self._kept_ms = self._left_out_ms = 0.0
        """How much audio is kept; and how much of the first piece is not any more, as it was said
        long ago."""
        self._captions: list[str] = []
        """Of the piece that is being said, the last of which has not been said to its end."""
        self._began_ms: int | None = None
        """When the piece that is being said began; None where none is."""

    def __iter__(self) -> Iterator[Given]:
        return iter(tuple(self._given))

    def __len__(self) -> int:
        return len(self._given)

    def give(self, given: Given) -> None:
        """Add ``given``, audio, a text or the end of a piece of speech, which was sent to the
        session just now. Audio beyond three minutes is removed, the oldest first."""
        self._given.append(given)
        if isinstance(given, Audio):
            self._kept_ms += given.ms
        while self._kept_ms > _MOST_MS and isinstance(first := self._given[0], Audio):
            self._given.popleft()
            self._kept_ms -= first.ms
            self._left_out_ms += first.ms

    def drop(self) -> None:
        """Remove all: it was interrupted, and nothing of it will be said."""
        self._given.clear()
        self._captions.clear()
        self._kept_ms = self._left_out_ms = 0.0

    def drop_text(self, number: int) -> None:
        """Remove the text with this ``number``, because the session refused it; does nothing where
        there is none."""
        for index, given in enumerate(self._given):
            if isinstance(given, Text) and given.number == number:
                del self._given[index]
                return

    def count_texts_anew(self) -> None:
        """Number the texts that are kept 1, 2 and so on (``Text.number``), in their order: the
        numbers that they have on a new connection on which they are sent before any other text. To
        be called before they are sent there."""
        numbers = count(1)
        for index, given in enumerate(self._given):
            if isinstance(given, Text):
                self._given[index] = Text(given.text, next(numbers))

    def take(self, event: object) -> None:
        """Take in ``event``, what a session tells: at ``SpeechEnded``, what was said by then is
        removed; ``SpeechBegan`` and ``Caption`` say where in it the session is. Anything else is
        ignored."""
        if isinstance(event, SpeechBegan):
            self._began_ms = event.at_ms
        elif isinstance(event, Caption):
            self._captions.append(event.text)
        elif isinstance(event, SpeechEnded):
            if self._captions:
                self._said_texts(self._captions, whole=True)
            else:
                self._said_audio(event.spoken_ms + event.left_ms)
            self._captions, self._began_ms = [], None

    def break_off(self, at_ms: int) -> float | None:
        """Remove what was said before ``at_ms``, in milliseconds from the session's start, when the
        session is left in the middle of a piece of speech, and return how much of that piece was
        said by then, in milliseconds; None where none was being said. A sentence of a text that was
        begun counts as not said."""
        began_ms, captions = self._began_ms, self._captions
        self._captions, self._began_ms = [], None
        if began_ms is None:
            return None
        spoken_ms = float(max(0, at_ms - began_ms))
        if captions:
            self._said_texts(captions[:-1], whole=False)
        else:
            self._said_audio(spoken_ms)
        return spoken_ms

    def _said_audio(self, ms: float) -> None:
        ms, self._left_out_ms = max(0.0, ms - self._left_out_ms), 0.0
        before = 0.0
        for given in self._given:
            if not isinstance(given, Audio):
                break
            before += given.ms
        if before <= ms + _ROUNDING_MS:
            ms = before
        while self._given and isinstance(first := self._given[0], Audio):
            if first.ms > ms:
                self._given[0] = first.after(ms)
                self._kept_ms -= ms
                return
            ms -= first.ms
            self._kept_ms -= first.ms
            self._given.popleft()
        if self._given and isinstance(self._given[0], EndOfSpeech):
            self._given.popleft()

    def _said_texts(self, captions: list[str], *, whole: bool) -> None:
        if not self._given or not isinstance(first := self._given[0], Text):
            return
        rest = _after(first.text, captions)
        if rest or (rest is None and not whole):
            self._given[0] = first if rest is None else replace(first, text=rest)
        else:
            self._given.popleft()


def _after(text: str, captions: list[str]) -> str | None:
    """What of ``text`` follows ``captions``, however blanks are written; None where it does not
    begin with them."""
    left = "".join("".join(captions).split())
    for index, letter in enumerate(text):
        if not left:
            return text[index:].strip()
        if letter.isspace():
            continue
        if letter != left[0]:
            return None
        left = left[1:]
    return None if left else ""
