"""A package's frames as pixels, a few at a time: work in a thread pool, results in order.

Decoding releases the interpreter lock, so threads are enough. How many frames are in memory at a
time is bounded.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.images import read_image
from lipwire.avatars.frames.origins import Origins
from lipwire.avatars.frames.resampling import on_grid
from lipwire.avatars.frames.videoframes import FrameTime, Video, VideoFrame, opened_video
from lipwire.domain import UInt8Array

T = TypeVar("T")
FrameTask = Callable[[], UInt8Array]
"""Gives one frame, (height, width, 3) uint8 BGR; raises AvatarInvalid. Runs in any thread."""

_IN_FLIGHT_PER_WORKER: Final = 2
_IN_FLIGHT_BYTES: Final = 256 * 1024 * 1024
"""Of frames in memory at a time: 10 of 4K."""


def frame_tasks(pictures: Pictures, origins: Origins | None = None) -> Generator[FrameTask]:
    """Yield one task for each source frame of ``pictures``, in order. A task takes no arguments,
    may run in any thread, and returns the frame, (height, width, 3) uint8 BGR.

    Images are decoded by the tasks. A video is decoded in the thread that iterates, and its tasks
    only convert decoded frames to BGR; close the iterator when leaving it early. For a video,
    ``origins``, which should be new if it is given, is filled: ``times``, ``keys``, ``sources`` and
    ``damage`` while iterating, ``shown`` at the end. Iterating and tasks raise AvatarInvalid where
    the source cannot be read or decoded; iterating also where times leap by more than a minute.
    """
    if pictures.video_path is not None:
        found = Origins() if origins is None else origins
        times = []
        with opened_video(pictures.video_path) as video:
            for frame in _told(video, found):
                times.append(FrameTime(frame.number, frame.pts))
                yield frame.pixels
            name = pictures.video_path.name
            shown = on_grid(times, video.time_base, video.rate, name)
            found.shown = [frame.number for frame in shown]
        return
    for index, path in enumerate(pictures.frame_paths):
        yield partial(read_image, path, pictures.label(index))


def frame_counts(pictures: Pictures) -> tuple[int, int]:
    """Return (how many frames an avatar of ``pictures`` shows, how many frames its source has),
    without decoding them. For images the two are equal; a video is resampled to 25 a second.

    In a damaged video frames that cannot be decoded are counted too. Raises AvatarInvalid where a
    video cannot be read or its time stamps leap by more than a minute.
    """
    if pictures.video_path is None:
        count = len(pictures.frame_paths)
        return count, count
    with opened_video(pictures.video_path) as video:
        times = video.frame_times()
        shown = on_grid(times, video.time_base, video.rate, pictures.video_path.name)
        return sum(1 for _ in shown), len(times)


def shown_frames(pictures: Pictures, origins: Origins) -> Generator[tuple[int, FrameTask]]:
    """Yield (number of its source frame, from 0; task) for each frame that an avatar of
    ``pictures`` shows, in order.

    A task takes no arguments, may run in any thread, and returns the frame, (height, width, 3)
    uint8 BGR. All images are shown; of a video the frame nearest to each 25th of a second is shown,
    so that some frames are shown several times or never. ``times``, ``keys``, ``sources`` and
    ``damage`` of ``origins``, which should be new, are filled meanwhile; ``shown`` and ``sums`` are
    left to the caller. Close the iterator when leaving it early. Iterating and tasks raise
    AvatarInvalid where the source cannot be read or decoded.
    """
    if pictures.video_path is None:
        origins.sources = len(pictures.frame_paths)
        yield from enumerate(frame_tasks(pictures))
        return

    with opened_video(pictures.video_path) as video:
        name = pictures.video_path.name
        for frame in on_grid(_told(video, origins), video.time_base, video.rate, name):
            yield frame.number, frame.pixels


def _told(video: Video, origins: Origins) -> Iterator[VideoFrame]:
    """The frames of ``video``, of which ``origins`` is told."""
    origins.damage = video.damage
    for frame in video.frames():
        origins.sources += 1
        origins.times.append(frame.mark)
        if frame.is_key:
            origins.keys.append(frame.number)
        yield frame


def in_order(
    tasks: Iterator[Callable[[], T]], workers: int, in_flight: int | None = None
) -> Generator[T]:
    """Yield the results of ``tasks``, which take no arguments, in the tasks' order; they run in
    ``workers`` threads that end with the iterator.

    At most ``in_flight`` tasks, 1 or more, are begun whose results are not yet yielded; None means
    two for each worker. Further tasks are read from ``tasks``, in the caller's thread, when results
    are read. The first error is raised and ends the iteration; tasks not yet begun are then
    dropped, and running ones are waited for. Close the iterator when leaving it early.
    """
    most = workers * _IN_FLIGHT_PER_WORKER if in_flight is None else in_flight
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, "lipwire-frames") as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) >= most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def frames_in_flight(frame_bytes: int, workers: int) -> int:
    """Return how many frames of ``frame_bytes`` bytes may be in memory at a time, for ``in_order``.

    Two for each of ``workers`` threads, fewer where they would take more than 256 MiB, at least
    one.
    """
    return max(1, min(workers * _IN_FLIGHT_PER_WORKER, _IN_FLIGHT_BYTES // frame_bytes))
