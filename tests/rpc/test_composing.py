"""The frames of a batch."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from lipwire.avatars import Avatar
from lipwire.domain import InvalidInput, UInt8Array
from lipwire.rpc.calls import Call, Cancelled
from lipwire.rpc.composing import compose_frames

MOUTHS: UInt8Array = np.random.default_rng(4).integers(0, 256, (17, 320, 320, 3), dtype=np.uint8)


@pytest.fixture
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(3) as executor:
        yield executor


@pytest.mark.parametrize("count", [1, 6, 7, 17])
def test_side_by_side_or_not_the_frames_come_in_order(
    anna: Avatar, threads: Executor, count: int
) -> None:
    wanted = [anna.jpeg(5 + i, MOUTHS[i]) for i in range(count)]
    for executor in (None, threads):
        frames = compose_frames(
            anna, 5, MOUTHS[:count], frame_format="jpeg", threads=executor, call=None
        )
        assert frames == wanted


def test_raw_frames(anna: Avatar, threads: Executor) -> None:
    frames = compose_frames(anna, 0, MOUTHS, frame_format="raw", threads=threads, call=None)
    assert frames == [anna.pixels(i, MOUTHS[i]).tobytes() for i in range(17)]


def test_nobody_waits_for_the_frames_of_a_call_that_is_over(
    anna: Avatar, threads: Executor
) -> None:
    call = Call(None)
    call.end()
    for executor in (None, threads):
        with pytest.raises(Cancelled):
            compose_frames(anna, 0, MOUTHS, frame_format="jpeg", threads=executor, call=call)


class Slow:
    """An avatar whose first frame fails while the others are still being made."""

    def __init__(self) -> None:
        self.inside = 0
        self.started = threading.Event()

    def jpeg(self, index: int, mouth: UInt8Array) -> bytes:
        if index == 0:
            assert self.started.wait(60)
            raise InvalidInput("the first frame")
        self.inside += 1
        self.started.set()
        threading.Event().wait(0.05)
        self.inside -= 1
        return b""


def test_an_error_leaves_no_thread_inside_the_avatar() -> None:
    slow: Any = Slow()
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(InvalidInput, match="the first frame"):
            compose_frames(slow, 0, MOUTHS[:12], frame_format="jpeg", threads=threads, call=None)
        assert slow.inside == 0
