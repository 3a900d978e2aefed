"""Speech for a live session, as it comes: a recording, or bare samples from a pipe; and the thread
that sends it."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

import numpy as np

from lipwire.cli.recordings import DASH, recording_of, warn
from lipwire.domain import Cancelled, InvalidInput, LipwireError
from lipwire.domain.closing import Closing

if TYPE_CHECKING:
    from lipwire.rpc.conversing import ConverseStream
    from lipwire.rpc.moving import MovingStream
    from lipwire.session.live.hearing import Pcm

_PIECE_S: Final = 0.04
"""How much is sent at a time where it is sent as it is spoken, or comes as it is spoken."""


@dataclass(frozen=True, slots=True)
class SpeechSource:
    """Audio that an avatar is to say: its rate, and its ``pieces`` in order, each (n,) or (n,
    channels) of int16, or of float32 in [-1, 1]. ``waits`` says that the next piece may never
    arrive, for example from standard input."""

    rate_hz: int
    pieces: Iterator[Pcm]
    """(n,) or (n, channels) each, int16 or float32 in [-1, 1]."""
    waits: bool
    """Whether a piece may be waited for without end."""


@contextmanager
def open_speech(
    audio: Path,
    *,
    rate_hz: int | None,
    channels: int,
    audio_track: int | None,
    allow_damaged: bool,
) -> Iterator[SpeechSource]:
    """Give the ``with`` block the speech in ``audio``, a file or "-" for standard input. A context
    manager.

    With ``rate_hz``, ``audio`` contains bare samples at that rate, 16 bits, little endian,
    interleaved in ``channels`` channels, and pieces are passed on as soon as they are read. With
    None it is a recording in any container. ``audio_track`` and ``allow_damaged`` are for
    recordings: the number of the track, from 1 (None: it is chosen), and whether a damaged one is
    accepted. Raises InvalidInput where ``audio`` cannot be read or decoded.
    """
    from lipwire.api import open_recording

    with ExitStack() as opened:
        if rate_hz is not None:
            file = opened.enter_context(_bare(audio))
            yield SpeechSource(rate_hz, bare_pieces(file, rate_hz, channels), True)
            return
        recording = opened.enter_context(
            open_recording(
                recording_of(audio), audio_track=audio_track, allow_damaged=allow_damaged
            )
        )
        warn(recording.warnings)
        sounds = (piece.sound for piece in recording.pieces() if len(piece.sound))
        yield SpeechSource(recording.rate_hz, sounds, False)


def bare_pieces(file: BinaryIO, rate_hz: int, channels: int) -> Iterator[Pcm]:
    """Yield the 16-bit little-endian samples of ``file``, ``rate_hz`` a second, interleaved in
    ``channels`` channels, as soon as they are read: pieces of about 40 ms or less, (n, channels)
    int16 each. Bytes at the end of ``file`` that are no whole sample of all channels are left out.
    """
    step = 2 * channels
    rest = b""
    while data := file.read(max(1, round(rate_hz * _PIECE_S)) * step):
        rest += data
        whole = len(rest) // step * step
        if whole:
            yield np.frombuffer(rest[:whole], "<i2").reshape(-1, channels).astype(np.int16)
            rest = rest[whole:]


def _bare(audio: Path) -> BinaryIO:
    """A file without a buffer: what is there is had at once, and who waits holds no lock of it,
    which would stop the interpreter from ending."""
    if audio != DASH:
        try:
            return cast(BinaryIO, audio.open("rb", buffering=0))
        except OSError as error:
            raise InvalidInput(f"{audio} cannot be read: {error.strerror}") from None
    given = cast(io.BufferedReader, recording_of(audio))
    try:
        return cast(BinaryIO, io.FileIO(given.fileno(), closefd=False))
    except OSError:  # it is none of the system's
        return given


class SpeechSender(Closing):
    """Sends speech to a live session, in a thread of its own. A context manager; after its ``with``
    block nothing more is sent. ``done`` becomes True when sending is over, because all was sent,
    ``stop`` was called, or sending failed; in the last case ``error`` says why. Where the session
    ended first, ``done`` stays False. ``sent_ms`` is how many milliseconds of audio were sent, and
    ``began_s`` when the first of it was, by ``clock`` (None before)."""

    def __init__(
        self, source: SpeechSource, *, live: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``source`` is the speech to send. With ``live`` it is sent no faster than it is spoken,
        like a microphone's; else at once. ``clock()`` returns seconds."""
        self._source = source
        self._live = live
        self._clock = clock
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.began_s: float | None = None
        """When the first of it was sent; None before."""
        self.sent_ms = 0.0
        """How long what was sent is."""
        self.done = False
        """Whether all of it was sent."""
        self.error: LipwireError | None = None
        """Why it could not be sent; None where it could."""

    def start(self, session: ConverseStream | MovingStream) -> None:
        """Begin to send the speech to ``session``, in a thread; returns at once. Call it once.
        Where sending fails, ``error`` is set and nothing is raised; where the session has ended,
        the thread ends without an error."""
        self._thread = threading.Thread(
            target=self._send, args=(session,), name="lipwire-speech", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Make the thread send nothing more. Returns at once; the piece that is being sent may
        still be sent."""
        self._stopped.set()

    def close(self) -> None:
        """Send nothing more, and wait for the thread's end. Where the source may wait for ever
        (``SpeechSource.waits``), this does not wait."""
        self.stop()
        if self._thread is not None and not self._source.waits:
            self._thread.join()

    def _send(self, session: ConverseStream | MovingStream) -> None:
        try:
            for piece in self._paced():
                session.push(piece, self._source.rate_hz)
                self.sent_ms += len(piece) * 1000 / self._source.rate_hz
            if not self._stopped.is_set():
                session.end_of_speech()
        except Cancelled:
            return
        except LipwireError as error:
            self.error = error
        except Exception as error:
            self.error = LipwireError(f"the speech could not be sent: {error}")
        self.done = True

    def _paced(self) -> Iterator[Pcm]:
        """Pieces when they are to be sent; none once stopped."""
        rate_hz = self._source.rate_hz
        step = max(1, round(rate_hz * _PIECE_S))
        for piece in self._source.pieces:
            for first in range(0, len(piece), step) if self._live else (0,):
                if self.began_s is None:
                    self.began_s = self._clock()
                part = piece[first : first + step] if self._live else piece
                if self._live:
                    # A microphone has a piece when it was spoken.
                    due_s = self.began_s + self.sent_ms / 1000 + len(part) / rate_hz
                    self._stopped.wait(max(0.0, due_s - self._clock()))
                if self._stopped.is_set():
                    return
                yield part


def default_speech() -> Path:
    """Return the path of the sentence that comes with Lipwire, a FLAC file. Raises NotFound where
    it is not installed."""
    from importlib.resources import files

    from lipwire.domain import NotFound

    sample = files("lipwire") / "assets" / "speech" / "sample.flac"
    if not isinstance(sample, Path) or not sample.is_file():
        raise NotFound("the bundled sentence is not there; name a recording")
    return sample
