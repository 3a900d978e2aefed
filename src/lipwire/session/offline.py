"""Speech that is there in full, to mouths: the part of a render that computes.

Two kinds of threads work ahead of whoever takes the results: one makes windows from the speech,
piece by piece, and one or more (``lanes``) run the network. At most ``lanes + 2`` batches exist at
any time; when nobody takes them, the threads rest. The threads end with the iterator: at its end,
when an error passes through it, and when it is closed half-way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from lipwire.audio import WindowStream, frame_count
from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, InvalidInput, UInt8Array
from lipwire.session.performer import Performer
from lipwire.session.timing import Stopwatch

SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS


@dataclass(frozen=True, slots=True)
class MouthBatch:
    """Mouths of consecutive frames."""

    first: int  # frame of the video, from 0
    background: int  # frame of the avatar that `first` goes onto, before the walk back and forth
    mouths: UInt8Array  # (n, 320, 320, 3) uint8, the package's colour order


def animate(
    performer: Performer,
    pcm: Float32Array,
    *,
    start_frame: int = 0,
    batch_size: int = 2,
    lanes: int = 1,
    stopwatch: Stopwatch | None = None,
) -> Generator[MouthBatch]:
    """The mouths that say `pcm`, in order, ``frame_count(len(pcm))`` of them in all.

    ``pcm`` is (samples,) float32 at 16 kHz, mono, in [-1, 1]. ``start_frame`` (>= 0) is the frame
    of the avatar under the first mouth. ``lanes`` is how many batches the network works on at a
    time.

    Close it (``contextlib.closing``) where it may be left half-way: an error's traceback would keep
    its threads waiting otherwise.

    Raises InvalidInput for speech of another shape or with NaN, and for numbers out of range.
    """
    _check(pcm, start_frame, batch_size, lanes)
    watch = stopwatch or Stopwatch()
    return _animate(performer, pcm, start_frame, batch_size, lanes, watch)


def _animate(
    performer: Performer,
    pcm: Float32Array,
    start_frame: int,
    batch_size: int,
    lanes: int,
    watch: Stopwatch,
) -> Generator[MouthBatch]:
    windows = _windows(performer, pcm, batch_size, watch)
    listening = ThreadPoolExecutor(1, thread_name_prefix="lipwire-audio")
    inferring = ThreadPoolExecutor(lanes, thread_name_prefix="lipwire-network")
    ahead: deque[Future[UInt8Array]] = deque()

    def infer(first: int, heard: Future[Float32Array]) -> UInt8Array:
        batch = heard.result()
        with watch.measure("crop"):
            crops = np.stack(
                [performer.avatar.crop(start_frame + first + i) for i in range(len(batch))]
            )
        with watch.measure("network"):
            return performer.engine.infer(performer.model, crops, batch)

    def submit(first: int) -> None:
        # The one thread of the audio keeps the order; each batch waits for its own windows.
        heard = listening.submit(next, windows)
        ahead.append(inferring.submit(infer, first, heard))

    try:
        total = frame_count(len(pcm))
        asked = given = 0
        while given < total:
            while asked < total and len(ahead) < lanes + 2:
                submit(asked)
                asked += batch_size
            mouths = ahead.popleft().result()
            yield MouthBatch(given, start_frame + given, mouths)
            given += len(mouths)
    finally:
        # The audio first: the network may be waiting for it.
        for future in ahead:
            future.cancel()
        listening.shutdown(wait=True, cancel_futures=True)
        inferring.shutdown(wait=True, cancel_futures=True)


def _windows(
    performer: Performer, pcm: Float32Array, batch_size: int, watch: Stopwatch
) -> Iterator[Float32Array]:
    """The windows of `pcm` in batches of `batch_size`, the last one shorter."""
    stream = WindowStream(performer.encoder)
    # A second at a time keeps the encoder's batches large enough and the first frame early.
    piece = SAMPLE_RATE_HZ
    waiting: list[Float32Array] = []
    for start in range(0, len(pcm) + piece, piece):
        with watch.measure("audio"):
            last = start >= len(pcm)
            fresh = stream.flush() if last else stream.push(pcm[start : start + piece])
        waiting.append(fresh)
        if sum(map(len, waiting)) < batch_size and not last:
            continue
        ready = np.concatenate(waiting)
        whole = len(ready) if last else len(ready) // batch_size * batch_size
        for first in range(0, whole, batch_size):
            yield ready[first : first + batch_size]
        waiting = [ready[whole:]]


def _check(pcm: Float32Array, start_frame: int, batch_size: int, lanes: int) -> None:
    if pcm.ndim != 1:
        raise InvalidInput(f"speech has shape {pcm.shape}, one channel (samples,) is needed")
    if len(pcm) == 0:
        raise InvalidInput("speech has 0 samples, at least 1 is needed")
    if not np.isfinite(pcm).all():
        raise InvalidInput("speech has samples that are not numbers (NaN or infinite)")
    for name, value, least in (
        ("start_frame", start_frame, 0),
        ("batch_size", batch_size, 1),
        ("lanes", lanes, 1),
    ):
        if value < least:
            raise InvalidInput(f"{name} is {value}, at least {least} is needed")
