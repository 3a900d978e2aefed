import threading
from contextlib import closing

import pytest

from lipwire.avatars.frames.frameloading import frames_in_flight, in_order

FOUR_K_BYTES = 3840 * 2160 * 3


@pytest.mark.parametrize(
    ("frame_bytes", "workers", "frames"),
    [
        (1280 * 720 * 3, 2, 4),
        (1280 * 720 * 3, 64, 97),
        (FOUR_K_BYTES, 2, 4),
        (FOUR_K_BYTES, 64, 10),
        (8192 * 8192 * 3, 64, 1),
        (FOUR_K_BYTES, 1, 2),
    ],
)
def test_frames_in_memory_are_bounded_by_bytes(frame_bytes: int, workers: int, frames: int) -> None:
    assert frames_in_flight(frame_bytes, workers) == frames
    assert frames * frame_bytes <= 256 * 1024 * 1024


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_no_more_than_that_are_begun(in_flight: int) -> None:
    lock = threading.Lock()
    begun = given = 0
    most = 0

    def task() -> int:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - given)
            return begun

    with closing(in_order(iter([task] * 50), 8, in_flight)) as results:
        for _ in results:
            with lock:
                given += 1
    assert (begun, given) == (50, 50)
    assert most <= in_flight + 1
