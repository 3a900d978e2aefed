"""Crops stay on the device while there is room, nobody's are seen as another's, and nothing fails
because of them."""

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.examples import examples
from tests.support.hostmemory import HostMemory
from tests.support.waiting import until

from lipwire.domain import Overloaded
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.memory.cropplaces import CROP_BYTES, CropPlace
from lipwire.engine.gpu.memory.crops import BLOCK_FRAMES, AvatarCrops, Crops
from lipwire.engine.gpu.memory.devicebudget import DeviceBudget
from lipwire.engine.gpu.memory.devicememory import Bytes, Region
from lipwire.engine.gpu.memory.weightscache import WeightsCache

MANY = 200 * CROP_BYTES


def pixels(avatar: int, number: int) -> Bytes:
    """A crop that no other frame of no other avatar has."""
    return np.full(CROP_BYTES, (avatar * 31 + number) % 251, np.uint8)


def shown(
    memory: HostMemory, crops: Crops, avatar: AvatarCrops, which: int, numbers: Sequence[int]
) -> list[bool]:
    """Use ``numbers`` as a stream does; which of them were there. What is there has to be right."""
    with crops.use(avatar, numbers) as places:
        for number, place in zip(numbers, places, strict=True):
            bring(memory, place, pixels(which, number))
        return [place is not None and place.there for place in places]


def bring(memory: HostMemory, place: CropPlace | None, crop: Bytes) -> None:
    if place is not None and place.there:
        found = np.zeros(CROP_BYTES, np.uint8)
        memory.download(0, found, place.address)
        assert (found == crop).all()
    elif place is not None:
        memory.upload(0, place.address, crop)


@pytest.fixture
def memory() -> HostMemory:
    return HostMemory(MANY)


def test_what_was_used_once_is_there_from_then_on(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna, bert = crops.add(50), crops.add(50)
    assert shown(memory, crops, anna, 1, [18, 19, 20]) == [False] * 3
    assert shown(memory, crops, anna, 1, [20, 19, 18, 17]) == [True, True, True, False]
    assert shown(memory, crops, bert, 2, [18, 19]) == [False] * 2
    assert shown(memory, crops, anna, 1, [17, 18]) == [True] * 2
    stats = crops.stats()
    assert (stats.hits, stats.misses) == (5, 6)
    assert (stats.blocks, stats.avatars) == (3, 2)
    assert stats.device_bytes == MANY - memory.free_bytes() == 3 * BLOCK_FRAMES * CROP_BYTES
    assert crops.missing(anna, [16, 17, 16, 40]) == [16, 40]
    crops.close()
    assert memory.regions == 0


def test_the_last_block_is_as_long_as_the_avatar(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    shown(memory, crops, crops.add(1), 1, [0])
    assert crops.device_bytes == CROP_BYTES
    shown(memory, crops, crops.add(BLOCK_FRAMES + 3), 2, [BLOCK_FRAMES + 2])
    assert crops.device_bytes == 4 * CROP_BYTES


def test_a_use_that_fails_keeps_nothing(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna = crops.add(8)
    with pytest.raises(RuntimeError), crops.use(anna, [0, 1]):
        raise RuntimeError("a kernel failed")
    assert shown(memory, crops, anna, 1, [0, 1]) == [False] * 2
    assert shown(memory, crops, anna, 1, [0, 1]) == [True] * 2


def test_a_crop_is_brought_by_one_at_a_time(memory: HostMemory) -> None:
    """And one that a request has twice is kept once."""
    crops = Crops(memory, DeviceBudget(MANY))
    anna = crops.add(8)
    with crops.use(anna, [0, 1, 0]) as first:
        assert [place is None for place in first] == [False, False, True]
        with crops.use(anna, [1, 2]) as second:
            assert [place is None for place in second] == [True, False]
            bring(memory, second[1], pixels(1, 2))
        assert crops.missing(anna, [0, 1, 2]) == [0, 1]
        for place, number in zip(first, (0, 1), strict=False):
            bring(memory, place, pixels(1, number))
    assert shown(memory, crops, anna, 1, [0, 1, 2]) == [True] * 3


def test_the_least_worthy_give_way_and_no_others(memory: HostMemory) -> None:
    """Room for two: what is used now and then does not push out what is used much."""
    crops = Crops(memory, DeviceBudget(4 * CROP_BYTES))
    anna, bert, cora = (crops.add(2) for _ in range(3))
    for _ in range(20):
        shown(memory, crops, anna, 1, [0, 1])
    shown(memory, crops, bert, 2, [0, 1])
    assert shown(memory, crops, cora, 3, [0, 1]) == [False] * 2  # bert has gone for it
    assert shown(memory, crops, cora, 3, [0, 1]) == [True] * 2
    assert shown(memory, crops, anna, 1, [0, 1]) == [True] * 2
    assert crops.stats().evictions == 1
    with crops.use(cora, [0]):  # and then it is in use, and anna is worth more than bert
        assert shown(memory, crops, bert, 2, [0, 1]) == [False] * 2
        assert shown(memory, crops, bert, 2, [0, 1]) == [False] * 2
    assert shown(memory, crops, anna, 1, [0, 1]) == [True] * 2


def test_an_avatar_gives_up_its_oldest_block_first(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(3 * BLOCK_FRAMES * CROP_BYTES))
    anna, bert = crops.add(60), crops.add(20)
    shown(memory, crops, anna, 1, [40])
    shown(memory, crops, anna, 1, [0, 20])
    shown(memory, crops, bert, 2, [0])
    shown(memory, crops, bert, 2, [1])
    assert crops.missing(anna, [0, 20, 40]) == [40]


def test_crops_take_what_weights_leave_and_no_more() -> None:
    class Weights:
        size_bytes = 3 * CROP_BYTES

        def write(self, image: Any) -> None:
            image[:] = 7

    memory = HostMemory(MANY)
    budget = DeviceBudget(8 * CROP_BYTES)
    crops = Crops(memory, budget)
    weights_cache = WeightsCache(memory, device_bytes=budget, evict_others=crops.give_up)
    anna, bert = crops.add(4), crops.add(4)
    shown(memory, crops, anna, 1, [0])
    shown(memory, crops, bert, 2, [0])
    first, second = weights_cache.add(Weights()), weights_cache.add(Weights())
    assert weights_cache.prefetch(first)
    assert crops.missing(anna, [0]) == [0]
    assert crops.missing(bert, [0]) == []
    assert (crops.device_bytes, weights_cache.stats().device_bytes) == (
        4 * CROP_BYTES,
        3 * CROP_BYTES,
    )
    for _ in range(9):
        shown(memory, crops, anna, 1, [0])  # worth more than bert by now, than weights never
    assert crops.missing(anna, [0]) == []
    assert weights_cache.stats().evictions == 0
    with crops.use(anna, [0]):
        # They are in use: the other weights have to go, and then there is room.
        assert weights_cache.prefetch(second)
        assert weights_cache.stats().device_items == 1
        with weights_cache.use(second), pytest.raises(Overloaded), weights_cache.use(first):
            pass
    with weights_cache.use(second), weights_cache.use(first):
        assert crops.device_bytes == 0
        assert budget.taken_bytes == 6 * CROP_BYTES
    weights_cache.close()
    assert budget.taken_bytes == memory.regions == 0


def test_weights_that_find_the_device_full_have_crops_go_first() -> None:
    class Weights:
        size_bytes = 3 * CROP_BYTES

        def write(self, image: Any) -> None:
            image[:] = 7

    memory = HostMemory(7 * CROP_BYTES)
    budget = DeviceBudget(MANY)
    crops = Crops(memory, budget)
    weights_cache = WeightsCache(memory, device_bytes=budget, evict_others=crops.give_up)
    assert weights_cache.prefetch(weights_cache.add(Weights()))
    shown(memory, crops, crops.add(4), 1, [0])
    assert memory.free_bytes() == 0
    assert weights_cache.prefetch(weights_cache.add(Weights()))
    stats = weights_cache.stats()
    assert (stats.device_items, stats.out_of_memory, stats.evictions) == (2, 1, 0)
    assert crops.device_bytes == 0
    weights_cache.close()


@pytest.mark.parametrize("most", [0, CROP_BYTES - 1])
def test_none_are_kept_where_none_are_to_be(memory: HostMemory, most: int) -> None:
    crops = Crops(memory, DeviceBudget(MANY), most_bytes=most)
    assert not crops.keeps_any
    anna = crops.add(1)
    for _ in range(2):
        assert shown(memory, crops, anna, 1, [0]) == [False]
    assert memory.regions == 0


def test_no_more_than_they_may(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY), most_bytes=5 * CROP_BYTES)
    avatars = [crops.add(2) for _ in range(6)]
    for which, avatar in enumerate(avatars):
        shown(memory, crops, avatar, which, [0, 1])
        assert crops.device_bytes <= 5 * CROP_BYTES
    assert crops.stats().blocks == 2


def test_the_last_of_a_devices_memory_is_left_to_others() -> None:
    memory = HostMemory(9 * CROP_BYTES)
    crops = Crops(memory, DeviceBudget(MANY), spare_bytes=3 * CROP_BYTES)
    avatars = [crops.add(2) for _ in range(5)]
    for which, avatar in enumerate(avatars):
        shown(memory, crops, avatar, which, [0, 1])
    assert memory.free_bytes() == 3 * CROP_BYTES
    assert crops.missing(avatars[-1], [0, 1]) == []  # the least worthy have gone for it
    taken = memory.allocate(3 * CROP_BYTES)
    assert crops.give_up(1) == 2 * CROP_BYTES
    gone = next(avatar for avatar in avatars if crops.missing(avatar, [0]))
    shown(memory, crops, gone, avatars.index(gone), [0])
    assert memory.free_bytes() == 2 * CROP_BYTES, "not taken back while there is so little"
    memory.free(taken)


def test_a_device_that_is_full_is_no_error() -> None:
    memory = HostMemory(3 * CROP_BYTES)
    crops = Crops(memory, DeviceBudget(MANY))
    anna, bert = crops.add(2), crops.add(2)
    taken = memory.allocate(2 * CROP_BYTES)
    assert shown(memory, crops, anna, 1, [0, 1]) == [False] * 2
    memory.free(taken)
    assert shown(memory, crops, anna, 1, [0, 1]) == [False] * 2
    assert shown(memory, crops, anna, 1, [0, 1]) == [True] * 2
    with crops.use(anna, [0]):
        assert shown(memory, crops, bert, 2, [0]) == [False]
    assert crops.device_bytes == 2 * CROP_BYTES


def test_a_lost_device_is_told_to_who_uses_it(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna = crops.add(8)
    memory.lost = True
    with pytest.raises(DeviceLost), crops.use(anna, [0]):
        pass
    memory.lost = False
    assert shown(memory, crops, anna, 1, [0]) == [False]
    crops.close()  # nobody is thought to use it


def test_what_is_unloaded_leaves_at_once_or_with_its_last_user(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna, bert = crops.add(8), crops.add(8)
    shown(memory, crops, anna, 1, [0])
    shown(memory, crops, bert, 2, [0])
    crops.unload(anna)
    assert memory.regions == 1
    with crops.use(bert, [0, 1]) as places:
        crops.unload(bert)
        bring(memory, places[0], pixels(2, 0))
        bring(memory, places[1], pixels(2, 1))
        assert memory.regions == 1
    assert memory.regions == 0
    for avatar in (anna, bert):
        assert shown(memory, crops, avatar, 1, [0]) == [False]
    assert memory.regions == 0, "what is unloaded is not kept again"


def test_what_is_forgotten_leaves_at_the_next_use_of_anything(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna, bert = crops.add(8), crops.add(8)
    shown(memory, crops, anna, 1, [0])
    crops.remove(anna)
    shown(memory, crops, bert, 2, [0])
    assert crops.stats().avatars == memory.regions == 1


def test_room_for_something_else(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna, bert = crops.add(2), crops.add(2)
    shown(memory, crops, anna, 1, [0])
    shown(memory, crops, bert, 2, [0])
    with crops.use(anna, [0]):
        assert crops.give_up(1) == 2 * CROP_BYTES
        assert crops.give_up(1) == 0
    assert (crops.give_up(1), crops.give_up(1)) == (2 * CROP_BYTES, 0)
    assert memory.free_bytes() == MANY


def test_out_of_the_way_nothing_is_kept(memory: HostMemory) -> None:
    """It waits for who uses crops, and who comes meanwhile does without."""
    crops = Crops(memory, DeviceBudget(MANY))
    anna = crops.add(8)
    away, back = threading.Event(), threading.Event()

    def go() -> None:
        with crops.out_of_the_way():
            away.set()
            assert back.wait(10)

    with ThreadPoolExecutor(1) as threads:
        with crops.use(anna, [0]) as places:
            gone = threads.submit(go)
            until(lambda: crops._away)
            assert not away.is_set()
            assert memory.regions == 1
            bring(memory, places[0], pixels(1, 0))
            with crops.use(anna, [1]) as others:
                assert others == [None]
        assert away.wait(10)
        assert memory.regions == 0
        assert shown(memory, crops, anna, 1, [0]) == [False]
        assert memory.regions == 0
        back.set()
        gone.result(10)
    shown(memory, crops, anna, 1, [0])
    assert shown(memory, crops, anna, 1, [0]) == [True]


def test_closed_they_keep_nothing(memory: HostMemory) -> None:
    crops = Crops(memory, DeviceBudget(MANY))
    anna = crops.add(8)
    using = crops.use(anna, [0])
    places = using.__enter__()
    closing = threading.Thread(target=crops.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    bring(memory, places[0], pixels(1, 0))
    using.__exit__(None, None, None)
    closing.join(10)
    assert memory.regions == 0
    assert shown(memory, crops, anna, 1, [0]) == [False]


def test_under_concurrency_everybody_sees_his_own_crops() -> None:
    """12 avatars, room for a third of their blocks, a device that is smaller, and things that are
    unloaded and given up all the while."""
    memory = HostMemory(60 * CROP_BYTES)
    budget = DeviceBudget(70 * CROP_BYTES)
    crops = Crops(memory, budget)
    avatars = [crops.add(12) for _ in range(12)]
    hits = [0] * 4

    def work(worker: int) -> None:
        chance = random.Random(worker)
        for turn in range(60):
            which = min(int(chance.expovariate(0.4)), 11)
            avatar = avatars[which]
            first = chance.randrange(8)
            try:
                there = shown(memory, crops, avatar, which, range(first, first + 4))
                hits[worker] += sum(there)
            except AssertionError:
                raise AssertionError(f"another crop in {which}'s place") from None
            if chance.random() < 0.05:
                crops.give_up(20 * CROP_BYTES)
            if chance.random() < 0.05:
                crops.unload(avatar)
                avatars[which] = crops.add(12)
            if (worker, turn) == (0, 30):
                with crops.out_of_the_way():
                    assert crops.device_bytes == 0

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert sum(hits) > 0
    assert crops.stats().evictions > 0
    assert crops.device_bytes == budget.taken_bytes == 60 * CROP_BYTES - memory.free_bytes()
    crops.close()
    assert budget.taken_bytes == memory.regions == 0


class Books(RuleBasedStateMachine):
    """Any order of uses, overlapping ones too, failures and removals keeps the books right."""

    MOST, REAL = 12 * CROP_BYTES, 10 * CROP_BYTES

    def __init__(self) -> None:
        super().__init__()
        self.memory = HostMemory(self.REAL)
        self.budget = DeviceBudget(self.MOST)
        self.crops = Crops(self.memory, self.budget, spare_bytes=CROP_BYTES)
        self.lengths = [1, 2, 3, 4]
        self.avatars = [self.crops.add(length) for length in self.lengths]
        self.held: list[tuple[Any, list[CropPlace | None], list[int], int]] = []

    @rule(which=st.integers(0, 3), numbers=st.lists(st.integers(0, 3), min_size=1, max_size=5))
    def enter(self, which: int, numbers: list[int]) -> None:
        numbers = [number % self.lengths[which] for number in numbers]
        use = self.crops.use(self.avatars[which], numbers)
        places = use.__enter__()
        assert len(places) == len(numbers)
        for number, place in zip(numbers, places, strict=True):
            bring(self.memory, place, pixels(which, number))
        self.held.append((use, places, numbers, which))

    @precondition(lambda self: self.held)
    @rule(chosen=st.integers(0, 100), fails=st.booleans())
    def leave(self, chosen: int, fails: bool) -> None:
        use, *_ = self.held.pop(chosen % len(self.held))
        if fails:
            with pytest.raises(OSError, match="no"):
                use.gen.throw(OSError("no"))
        else:
            use.__exit__(None, None, None)

    @rule(which=st.integers(0, 3))
    def unload(self, which: int) -> None:
        self.crops.unload(self.avatars[which])
        self.avatars[which] = self.crops.add(self.lengths[which])

    @rule(size=st.integers(1, 3 * CROP_BYTES))
    def give_up(self, size: int) -> None:
        self.crops.give_up(size)

    @invariant()
    def books_are_right(self) -> None:
        taken = self.crops.device_bytes
        assert taken == self.budget.taken_bytes == self.REAL - self.memory.free_bytes()
        assert taken <= self.REAL - CROP_BYTES
        assert self.crops.stats().blocks <= self.memory.regions
        for _, places, numbers, which in self.held:
            for number, place in zip(numbers, places, strict=True):
                if place is not None:
                    found = np.zeros(CROP_BYTES, np.uint8)
                    self.memory.download(0, found, place.address)
                    assert (found == pixels(which, number)).all()

    def teardown(self) -> None:
        while self.held:
            self.held.pop()[0].__exit__(None, None, None)
        self.crops.close()
        assert self.memory.regions == self.budget.taken_bytes == 0


TestBooks = pytest.mark.slow(Books.TestCase)
TestBooks.settings = settings(max_examples=examples(25), stateful_step_count=20, deadline=None)


def test_places_are_side_by_side_within_a_block_and_nowhere_else() -> None:
    block, next_one = Region(1000, 99), Region(1000 + CROP_BYTES, 99)
    assert CropPlace(block, 0, True).behind(2) == CropPlace(block, 2 * CROP_BYTES, True)
    assert CropPlace(block, 0, True).behind(1).address == CropPlace(next_one, 0, True).address
    assert CropPlace(block, 0, True).behind(1) != CropPlace(next_one, 0, True)
    assert CropPlace(block, 0, True).behind(1) != CropPlace(block, CROP_BYTES, False)
