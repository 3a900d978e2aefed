"""A package's frames as pixels, a few at a time: work in a thread pool, results in order.

Decoding releases the interpreter lock, so threads are enough. Never more than a few frames per
worker are in memory.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import av
import numpy as np

from lipwire.avatars.images import MAX_FILE_BYTES, MAX_SIDE_PX, decode_image
from lipwire.avatars.package import Pictures
from lipwire.domain import AvatarInvalid, UInt8Array

T = TypeVar("T")
FrameTask = Callable[[], UInt8Array]
"""Gives one frame, (height, width, 3) uint8 BGR; raises AvatarInvalid. Runs in any thread."""

_IN_FLIGHT_PER_WORKER: Final = 2


def frame_tasks(pictures: Pictures) -> Generator[FrameTask]:
    """One task a frame, in order.

    Images are decoded by the tasks. A video is decoded by whoever iterates, and its tasks only hand
    the frames over; close the iterator when leaving it early.
    """
    if pictures.video_path is not None:
        for pixels in _video_frames(pictures.video_path):
            yield partial(_given, pixels)
        return
    for index, path in enumerate(pictures.frame_paths):
        yield partial(_read_image, path, pictures.label(index))


def in_order(tasks: Iterator[Callable[[], T]], workers: int) -> Generator[T]:
    """The results of ``tasks`` in their order; ``workers`` of them run at a time.

    The first error is raised and ends it; tasks not yet begun are dropped then, and those that run
    are waited for. Close the iterator when leaving it early.
    """
    pending: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, "lipwire-frames") as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) >= workers * _IN_FLIGHT_PER_WORKER:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def video_rate(path: Path) -> Fraction | None:
    """Frames a second of a video; None where it does not say. Raises AvatarInvalid."""
    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise AvatarInvalid(f"{path.name} holds no video stream")
            return video.streams.video[0].average_rate
    except (av.FFmpegError, OSError) as error:
        raise _video_broken(path, error) from error


def _given(pixels: UInt8Array) -> UInt8Array:
    return pixels


def _read_image(path: Path, label: str) -> UInt8Array:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise AvatarInvalid(
                f"{label} has {size_bytes} bytes; at most {MAX_FILE_BYTES} are read"
            )
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise AvatarInvalid(f"{label} cannot be read; {reason}") from error
    return decode_image(data, label)


def _video_frames(path: Path) -> Iterator[UInt8Array]:
    label = path.name
    count = 0
    try:
        with av.open(str(path)) as video:
            if not video.streams.video:
                raise AvatarInvalid(f"{label} holds no video stream")
            video.streams.video[0].thread_type = "AUTO"
            for frame in video.decode(video=0):
                if max(frame.width, frame.height) > MAX_SIDE_PX:
                    raise AvatarInvalid(
                        f"{label} is {frame.width}x{frame.height};"
                        f" each side has to be 1 to {MAX_SIDE_PX} pixels"
                    )
                count += 1
                yield np.ascontiguousarray(frame.to_ndarray(format="bgr24"), np.uint8)
    except (av.FFmpegError, OSError) as error:
        raise _video_broken(path, error) from error
    if not count:
        raise AvatarInvalid(f"{label} holds no frame; at least one is needed")


def _video_broken(path: Path, error: Exception) -> AvatarInvalid:
    reason = (getattr(error, "strerror", None) or type(error).__name__).lower()
    return AvatarInvalid(f"{path.name} cannot be decoded as a video; {reason}")
