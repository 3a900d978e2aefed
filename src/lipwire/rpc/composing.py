"""The frames of a batch, each with its mouth, side by side where there are threads for it."""

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, Literal

from lipwire.avatars import Avatar
from lipwire.domain import UInt8Array
from lipwire.rpc.calls import Call

FrameFormat = Literal["jpeg", "raw"]

_FRAMES_A_TASK: Final = 6
"""Fewer are not worth handing to another thread: a JPEG takes some 0.4 ms."""


def compose_frames(
    avatar: Avatar,
    first: int,
    mouths: UInt8Array,
    *,
    frame_format: FrameFormat,
    threads: Executor | None,
    call: Call | None,
) -> list[bytes]:
    """Frames ``first`` and on with ``mouths`` (N, 320, 320, 3) uint8 on them, as JPEG or raw BGR.

    Raises what ``Avatar.jpeg`` and ``Avatar.pixels`` raise, and ends early where nobody waits for
    the answer of ``call``.
    """
    compose: Callable[[int, UInt8Array], bytes] = (
        avatar.jpeg
        if frame_format == "jpeg"
        else lambda i, mouth: avatar.pixels(i, mouth).tobytes()
    )

    def some(start: int, stop: int) -> list[bytes]:
        frames = []
        for index in range(start, stop):
            if call is not None:
                call.check()
            frames.append(compose(first + index, mouths[index]))
        return frames

    count = len(mouths)
    if threads is None or count <= _FRAMES_A_TASK:
        return some(0, count)
    starts = range(0, count, _FRAMES_A_TASK)
    tasks = [
        threads.submit(some, start, min(start + _FRAMES_A_TASK, count)) for start in starts[1:]
    ]
    try:
        frames = some(0, _FRAMES_A_TASK)
        for task in tasks:
            frames += task.result()
        return frames
    finally:
        # An error must not leave threads inside an avatar that is let go of.
        for task in tasks:
            if not task.cancel():
                task.exception()
