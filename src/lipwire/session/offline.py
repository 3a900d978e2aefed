"""From speech to mouths: the part of a render that computes.

Two kinds of threads work ahead of the caller: one makes windows from the speech, piece by piece,
and one or more (``lanes``) run the network. At most ``lanes + 2`` batches exist at any time; while
the caller takes none, the threads wait. The threads end with the iterator: at its end, when an
error passes through it, and when it is closed half-way.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lipwire.audio import WindowStream
from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, InvalidInput, UInt8Array
from lipwire.session.performer import Performing
from lipwire.session.timing import Stopwatch

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS


@dataclass(frozen=True, slots=True)
class MouthBatch:
    """The mouths of n consecutive frames, ``mouths``, (n, 320, 320, 3) uint8, in the package's
    colour order. ``first`` is the number, from 0, of the first of these frames in the video.
    ``background`` is the avatar's frame onto which the first mouth is pasted; mouth *i* is pasted
    onto frame ``background + i``. Past the avatar's last frame, numbers run back and forth over its
    frames."""

    first: int  # frame of the video, from 0
    background: int  # frame of the avatar that `first` goes onto, before the walk back and forth
    mouths: UInt8Array  # (n, 320, 320, 3) uint8, the package's colour order


WindowsObserver = Callable[[Float32Array], object]
"""Called with the windows of each batch, (n, 32, 16, 16) float32, in order."""


def animate(
    performer: Performing,
    speech: Float32Array | Iterable[Float32Array],
    *,
    start_frame: int = 0,
    batch_size: int = 2,
    lanes: int = 1,
    stopwatch: Stopwatch | None = None,
    observer: WindowsObserver | None = None,
) -> Generator[MouthBatch]:
    """Yield the mouths of the avatar ``performer`` that say ``speech``, in batches in order, 25
    mouths for each second, made ahead in threads.

    ``speech`` is (samples,) float32 at 16 kHz, mono, in [-1, 1], or an iterable of such pieces,
    which is read in another thread, some seconds ahead. ``start_frame`` (>= 0) is the frame of the
    avatar under the first mouth. Batches have ``batch_size`` frames, the last one perhaps fewer,
    and the network works on ``lanes`` of them at a time (both >= 1). ``stopwatch`` adds up the time
    of each stage (None: no time is measured). ``observer`` is called with what the network hears of
    each batch, (n, 32, 16, 16) float32, in the thread that computes it (None: nothing is called).

    Close the iterator (``contextlib.closing``) where it may be left half-way: otherwise the
    traceback of an error would keep the iterator alive and its threads waiting.

    Raises InvalidInput at once for numbers out of range, and for an array of another shape, without
    samples, or with NaN or infinity. Errors of the pieces, the audio encoder or the network
    (InvalidInput, AvatarInvalid, Unavailable, ...) are raised by the iterator.
    """
    _check(start_frame, batch_size, lanes)
    if isinstance(speech, np.ndarray):
        _check_pcm(speech)
        speech = _pieces(speech)
    watch = stopwatch or Stopwatch()
    windows = _windows(performer, speech, batch_size, watch)
    if observer is not None:
        windows = _observed(windows, observer)
    return _animate(performer, windows, start_frame, batch_size, lanes, watch)


def _animate(
    performer: Performing,
    windows: Iterator[Float32Array],
    start_frame: int,
    batch_size: int,
    lanes: int,
    watch: Stopwatch,
) -> Generator[MouthBatch]:
    listening = ThreadPoolExecutor(1, thread_name_prefix="lipwire-audio")
    inferring = ThreadPoolExecutor(lanes, thread_name_prefix="lipwire-network")
    ahead: deque[Future[UInt8Array | None]] = deque()

    def infer(first: int, heard: Future[Float32Array | None]) -> UInt8Array | None:
        batch = heard.result()
        if batch is None:
            return None
        return performer.mouths(start_frame + first, batch, watch)

    def submit(first: int) -> None:
        # The one thread of the audio keeps the order; each batch waits for its own windows.
        heard = listening.submit(next, windows, None)
        ahead.append(inferring.submit(infer, first, heard))

    try:
        given = 0
        for asked in itertools.count(0, batch_size):
            submit(asked)
            if len(ahead) < lanes + 2:
                continue
            mouths = ahead.popleft().result()
            if mouths is None:
                return
            yield MouthBatch(given, start_frame + given, mouths)
            given += len(mouths)
    finally:
        # The audio first: the network may be waiting for it.
        for future in ahead:
            future.cancel()
        listening.shutdown(wait=True, cancel_futures=True)
        inferring.shutdown(wait=True, cancel_futures=True)


def _windows(
    performer: Performing, pieces: Iterable[Float32Array], batch_size: int, watch: Stopwatch
) -> Iterator[Float32Array]:
    """The windows of the speech in batches of `batch_size`, the last one shorter."""
    stream = WindowStream(performer.encoder)
    waiting: list[Float32Array] = []
    coming = iter(pieces)
    last = False
    while not last:
        with watch.measure("audio"):
            piece = next(coming, None)
            last = piece is None
            fresh = stream.flush() if piece is None else stream.push(piece)
        waiting.append(fresh)
        if sum(map(len, waiting)) < batch_size and not last:
            continue
        ready = np.concatenate(waiting)
        whole = len(ready) if last else len(ready) // batch_size * batch_size
        for first in range(0, whole, batch_size):
            yield ready[first : first + batch_size]
        waiting = [ready[whole:]]


def _observed(windows: Iterator[Float32Array], observer: WindowsObserver) -> Iterator[Float32Array]:
    for batch in windows:
        observer(batch)
        yield batch


def _pieces(pcm: Float32Array) -> Iterator[Float32Array]:
    """A second at a time keeps the encoder's batches large enough and the first frame early."""
    for start in range(0, len(pcm), SAMPLE_RATE_HZ):
        yield pcm[start : start + SAMPLE_RATE_HZ]


def _check_pcm(pcm: Float32Array) -> None:
    if pcm.ndim != 1:
        raise InvalidInput(f"speech has shape {pcm.shape}, one channel (samples,) is needed")
    if len(pcm) == 0:
        raise InvalidInput("speech has 0 samples, at least 1 is needed")
    if not np.isfinite(pcm).all():
        raise InvalidInput("speech has samples that are not numbers (NaN or infinite)")


def _check(start_frame: int, batch_size: int, lanes: int) -> None:
    for name, value, least in (
        ("start_frame", start_frame, 0),
        ("batch_size", batch_size, 1),
        ("lanes", lanes, 1),
    ):
        if value < least:
            raise InvalidInput(f"{name} is {value}, at least {least} is needed")
