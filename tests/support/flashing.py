"""An avatar that is white while what it says is loud, and black else; and beeps for it to say.

Whether a frame is loud is heard by its audio encoder, so what is tried is the whole of a session.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, cast

import numpy as np
import numpy.typing as npt
from tests.support.liveparts import FakeAvatar

from lipwire.audio import AudioEncoder
from lipwire.domain import AudioWindows, Call, Float32Array, Mouths, UInt8Array
from lipwire.session.live import (
    LiveAvatar,
    LiveSession,
    LiveThreads,
    Pacer,
    SessionSettings,
)

RATE_HZ: Final = 48_000
BEEP_EVERY_S: Final = 1.0
BEEP_S: Final = 0.2
"""Beeps begin with a frame and last for whole ones."""
BEEP_HZ: Final = 1000
SETTINGS: Final = SessionSettings(gate=False, crossfade_frames=0)
"""A beep is no speech, and is shown at once."""
_LOUD: Final = 0.0
"""Bands of the mel spectrogram are within -4 and 4."""
_OF_FRAME: Final = 9
"""The row of a window that begins with its frame: the first row of all is there twice."""


class LoudnessEncoder:
    """Rows that are 1 where the first 12.5 ms of their frame are loud, and 0 else."""

    def encode(self, mels: Float32Array) -> Float32Array:
        """``mels`` is (n, 1, 80, 16)."""
        loud = mels[:, 0, :, 0].max(axis=1) > _LOUD
        return np.repeat(loud.astype(np.float32)[:, None], 512, axis=1)


class FlashingAvatar(FakeAvatar):
    """Frames of any size, grey levels 16 and 235. In their lowest quarter there is noise that
    moves, so that video takes as much as that of a person."""

    def flashing(self, width: int, height: int) -> LiveAvatar:
        """Return it as sessions use it."""

        noise = np.random.default_rng(1).integers(100, 156, (height // 4, width), np.uint8)

        def planes(
            position: int, mouth: UInt8Array | None, out: UInt8Array | None = None
        ) -> UInt8Array:
            self.on_compose(position)
            made = np.full((height * 3 // 2, width), 128, np.uint8) if out is None else out
            made[:height] = 235 if mouth is not None and mouth.mean() > 128 else 16
            made[height - len(noise) : height] = np.roll(noise, 16 * position, axis=1)
            return made

        def mouths(position: int, windows: AudioWindows, call: Call) -> Mouths:
            loud = windows.reshape(len(windows), 16, 512)[:, _OF_FRAME].max(axis=1) > 0
            made = np.zeros((len(windows), 2, 2, 3), np.uint8)
            made[loud] = 255
            return made

        encoder = cast("AudioEncoder", LoudnessEncoder())
        return LiveAvatar(
            "flashing",
            width,
            height,
            100,
            self._compose,
            mouths,
            self,
            encoder,
            self._close,
            planes,
        )


def beeps(first: int, count: int) -> npt.NDArray[np.int16]:
    """Return ``count`` samples of 48 kHz from sample ``first`` on."""
    times_s = np.arange(first, first + count) / RATE_HZ
    loud = (times_s + 1e-9) % BEEP_EVERY_S < BEEP_S
    wave = 0.6 * np.sin(2 * np.pi * BEEP_HZ * times_s)
    return np.asarray(np.rint(32767 * wave * loud), np.int16)


@contextmanager
def beeping(session: LiveSession, seconds: float) -> Iterator[None]:
    """Have ``session`` beep for so long, while the block runs."""
    pieces = range(0, round(seconds * RATE_HZ), RATE_HZ)
    with saying(session, (beeps(first, RATE_HZ) for first in pieces)):
        yield


@contextmanager
def saying(
    session: LiveSession, pieces: Iterable[npt.NDArray[np.int16]], rate_hz: int = RATE_HZ
) -> Iterator[None]:
    """Have ``session`` say ``pieces``, (n,) int16 each, while the block runs."""
    stopped = threading.Event()

    def push() -> None:
        for piece in pieces:
            if stopped.is_set() or session.closed:
                return
            session.push(piece, rate_hz)
        session.end_of_speech()

    thread = threading.Thread(target=push, name="says")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        session.interrupt()
        thread.join()


@contextmanager
def real_threads(workers: int = 8) -> Iterator[LiveThreads]:
    """Give threads for sessions whose time is that of the clock on the wall."""
    with (
        Pacer() as pacer,
        ThreadPoolExecutor(workers, thread_name_prefix="lipwire-live") as hearing,
        ThreadPoolExecutor(2, thread_name_prefix="lipwire-frames") as composing,
    ):
        yield LiveThreads(pacer, hearing, composing)
