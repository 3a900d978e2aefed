import numpy as np

from lipwire.avatars.frames.framecache import MAX_DEFAULT_BUDGET_BYTES, FrameCache, shared_cache
from lipwire.config import usable_memory_bytes
from lipwire.domain import UInt8Array


def frame(value: int, size: int = 100) -> UInt8Array:
    return np.full(size, value, np.uint8)


def held(cache: FrameCache, content: str = "a") -> list[int]:
    return [number for number in range(20) if (content, number) in cache]


def test_what_was_not_used_for_longest_goes() -> None:
    cache = FrameCache(300)
    for number in range(3):
        cache.put(("a", number), frame(number))
    assert cache.get(("a", 0)) is not None
    cache.put(("a", 3), frame(3))
    assert held(cache) == [0, 2, 3]
    assert cache.held_bytes == 300


def test_what_is_larger_than_the_budget_is_not_kept() -> None:
    cache = FrameCache(99)
    cache.put(("a", 0), frame(0))
    assert (held(cache), cache.held_bytes) == ([], 0)
    cache.put(("a", 1), frame(1, 50))
    cache.put(("a", 0), frame(0))  # pushes nothing out
    assert (held(cache), cache.held_bytes) == ([1], 50)
    cache.put(("a", 1), frame(1))  # which was smaller before
    assert (held(cache), cache.held_bytes) == ([], 0)


def test_a_frame_again_takes_its_place() -> None:
    cache = FrameCache(300)
    for value in range(5):
        cache.put(("a", 0), frame(value))
    kept = cache.get(("a", 0))
    assert kept is not None
    assert (int(kept[0]), cache.held_bytes) == (4, 100)


def test_frames_go_with_the_last_who_used_them() -> None:
    cache = FrameCache(500)
    cache.use("a")
    cache.use("a")
    cache.use("b")
    cache.put(("a", 0), frame(0))
    cache.put(("b", 0), frame(0))
    cache.leave("a")
    assert held(cache) == [0]
    cache.leave("a")
    assert (held(cache), held(cache, "b"), cache.held_bytes) == ([], [0], 100)


def test_the_process_has_one_of_a_quarter_of_the_memory_at_most() -> None:
    assert shared_cache() is shared_cache()
    assert shared_cache().budget_bytes <= MAX_DEFAULT_BUDGET_BYTES
    assert shared_cache().budget_bytes <= usable_memory_bytes() / 4
