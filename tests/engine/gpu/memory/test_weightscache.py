"""Weights come and go between tiers, within budgets, and never under somebody's feet."""

import gc
import random
import threading
import time
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

from lipwire.domain import Overloaded, StorageFailed, Unavailable
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.memory.devicememory import Region
from lipwire.engine.gpu.memory.deviceweights import DeviceWeights
from lipwire.engine.gpu.memory.weightscache import WeightsCache


class Numbered:
    """Weights that are all one number."""

    def __init__(self, number: int, size_bytes: int = 100) -> None:
        self.number = number
        self.size_bytes = size_bytes
        self.reads = 0
        self.error: Exception | None = None

    def write(self, image: Any) -> None:
        self.reads += 1
        if self.error is not None:
            image[: image.size // 2] = 0
            raise self.error
        image[:] = self.number


def _read(memory: HostMemory, region: Region) -> set[int]:
    out = np.zeros(region.size_bytes, np.uint8)
    memory.download(0, out, region.address)
    return set(out.tolist())


@pytest.fixture
def memory() -> HostMemory:
    return HostMemory(10_000)


def _three(weights_cache: WeightsCache) -> tuple[list[Numbered], list[DeviceWeights]]:
    sources = [Numbered(number) for number in (1, 2, 3)]
    return sources, [weights_cache.add(source) for source in sources]


def test_weights_are_there_while_they_are_used(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000)
    _, items = _three(weights_cache)
    for number, item in enumerate(items, 1):
        with weights_cache.use(item) as region:
            assert _read(memory, region) == {number}
    assert weights_cache.stats().device_bytes == 300
    assert weights_cache.stats().from_disk == 3
    with weights_cache.use(items[0]):
        assert weights_cache.stats().hits == 1


def test_the_least_worthy_leaves_and_comes_back_from_the_pinned_tier(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=200, host_bytes=1000)
    sources, items = _three(weights_cache)
    for index in (0, 0, 0, 1, 2, 0):  # 0 is used most: 1 has to go for 2
        with weights_cache.use(items[index]):
            pass
    assert [item.region is not None for item in items] == [True, False, True]
    with weights_cache.use(items[1]) as region:
        assert _read(memory, region) == {2}
    stats = weights_cache.stats()
    assert (stats.from_disk, stats.from_host, stats.evictions) == (3, 1, 2)
    assert [source.reads for source in sources] == [1, 1, 1]
    assert stats.device_bytes == 200
    assert stats.host_bytes == 300


def test_without_a_pinned_tier_it_comes_from_the_disk_again(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=100)
    sources, items = _three(weights_cache)
    for index in (0, 1, 0):
        with weights_cache.use(items[index]) as region:
            assert _read(memory, region) == {index + 1}
    assert sources[0].reads == 2
    assert weights_cache.stats().host_bytes == 0
    assert memory.host_blocks == 1  # the one that everything goes through


def test_what_is_in_use_stays_and_the_next_is_told_to_come_back(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=200)
    _, items = _three(weights_cache)
    with weights_cache.use(items[0]) as first, weights_cache.use(items[1]):
        with pytest.raises(Overloaded, match="in use") as caught, weights_cache.use(items[2]):
            pass
        assert caught.value.retry_after_s is not None
        assert not weights_cache.prefetch(items[2])
        assert _read(memory, first) == {1}
    assert weights_cache.prefetch(items[2])


def test_whoever_can_wait_has_the_room_that_others_leave(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=100)
    _, items = _three(weights_cache)
    waits = threading.Event()

    def use() -> set[int]:
        waits.set()
        with weights_cache.use(items[1], wait_s=60.0) as region:
            return _read(memory, region)

    with ThreadPoolExecutor(1) as pool:
        with weights_cache.use(items[0]) as region:
            waiting = pool.submit(use)
            assert waits.wait(60.0)
            with pytest.raises(TimeoutError):
                waiting.result(0.05)
            assert _read(memory, region) == {1}
        assert waiting.result(60.0) == {2}


def test_nobody_waits_for_room_that_will_never_be(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=50)
    _, items = _three(weights_cache)
    with pytest.raises(Overloaded, match="do not fit"):
        weights_cache.use(items[0], wait_s=3600.0).__enter__()


def test_whoever_has_others_in_use_waits_for_nothing(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000)
    sources, items = _three(weights_cache)
    begun, go_on = threading.Event(), threading.Event()

    def write_slowly(image: Any) -> None:
        begun.set()
        assert go_on.wait(60.0)
        image[:] = 2

    sources[1].write = write_slowly  # type: ignore[method-assign]
    assert weights_cache.prefetch(items[0])
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(weights_cache.prefetch, items[1])
        assert begun.wait(60.0)
        with weights_cache.use(items[0]), pytest.raises(Overloaded, match="on its way"):
            weights_cache.use(items[1], wait_s=3600.0, beside=True).__enter__()
        go_on.set()
        assert loading.result(60.0)
    with weights_cache.use(items[0]), weights_cache.use(items[1], beside=True) as region:
        assert _read(memory, region) == {2}


def test_so_many_and_no_more(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000, max_items=2)
    _, items = _three(weights_cache)
    for item in items:
        weights_cache.prefetch(item)
    assert weights_cache.stats().device_items == 2


def test_a_device_with_less_than_its_budget_gives_something_up() -> None:
    memory = HostMemory(250)
    weights_cache = WeightsCache(memory, device_bytes=10_000)
    _, items = _three(weights_cache)
    for item in items:
        with weights_cache.use(item):
            pass
    stats = weights_cache.stats()
    assert (stats.device_items, stats.out_of_memory, stats.evictions) == (2, 1, 1)
    with weights_cache.use(items[0]), weights_cache.use(items[1]), pytest.raises(Overloaded):
        weights_cache.use(items[2]).__enter__()
    assert weights_cache.stats().device_bytes == 200
    assert memory.free_bytes() == 50


def test_larger_weights_push_out_several_smaller_ones(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=300, host_bytes=300)
    _, items = _three(weights_cache)
    for item in items:
        weights_cache.prefetch(item)
    large = weights_cache.add(Numbered(9, 250))
    with weights_cache.use(large) as region:
        assert _read(memory, region) == {9}
    stats = weights_cache.stats()
    assert (stats.device_bytes, stats.device_items, stats.host_bytes) == (250, 1, 250)
    assert memory.free_bytes() == 10_000 - 250
    never = weights_cache.add(Numbered(7, 301))
    with pytest.raises(Overloaded), weights_cache.use(never):
        pass


def test_room_for_something_else(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000)
    _, items = _three(weights_cache)
    for item in items:
        weights_cache.prefetch(item)
    with weights_cache.use(items[0]):
        assert weights_cache.give_up(150) == 200
        assert weights_cache.give_up(1) == 0
    assert weights_cache.stats().device_bytes == 100
    assert memory.free_bytes() == 9_900


def test_a_source_that_fails_leaves_nothing_behind(memory: HostMemory) -> None:
    for host_bytes in (0, 1000):
        weights_cache = WeightsCache(memory, device_bytes=1000, host_bytes=host_bytes)
        source = Numbered(1)
        item = weights_cache.add(source)
        source.error = StorageFailed("the disk is gone")
        with pytest.raises(StorageFailed), weights_cache.use(item):
            pass
        assert weights_cache.stats().device_bytes == weights_cache.stats().host_bytes == 0
        source.error = None
        with weights_cache.use(item) as region:
            assert _read(memory, region) == {1}
        weights_cache.close()
    assert (memory.regions, memory.host_blocks) == (0, 0)


def test_a_pinned_tier_that_cannot_be_had_is_done_without() -> None:
    memory = HostMemory(1000, host_bytes=150)
    weights_cache = WeightsCache(memory, device_bytes=1000, host_bytes=1000)
    _, items = _three(weights_cache)
    with weights_cache.use(items[0]), pytest.raises(Overloaded, match="pinned"):
        weights_cache.use(items[1]).__enter__()
    assert weights_cache.stats().device_bytes == 100


def test_removed_weights_leave_when_their_user_does(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000, host_bytes=1000)
    _, items = _three(weights_cache)
    with weights_cache.use(items[0]) as region:
        weights_cache.remove(items[0])
        assert weights_cache.stats().device_bytes == 100
        assert _read(memory, region) == {1}
    assert weights_cache.stats().device_bytes == weights_cache.stats().host_bytes == 0
    with pytest.raises(Unavailable), weights_cache.use(items[0]):
        pass


def test_closing_waits_for_users_and_gives_all_back(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000, host_bytes=1000)
    _, items = _three(weights_cache)
    used = weights_cache.use(items[0])
    region = used.__enter__()
    weights_cache.prefetch(items[1])
    closing = threading.Thread(target=weights_cache.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    assert _read(memory, region) == {1}
    used.__exit__(None, None, None)
    closing.join(60)
    assert (memory.regions, memory.host_blocks) == (0, 0)
    with pytest.raises(Unavailable, match="closed"), weights_cache.use(items[0]):
        pass


def test_a_lost_device_is_told_to_who_uses_it(memory: HostMemory) -> None:
    weights_cache = WeightsCache(memory, device_bytes=1000)
    _, items = _three(weights_cache)
    memory.lost = True
    with pytest.raises(DeviceLost), weights_cache.use(items[0]):
        pass


def test_several_who_want_the_same_wait_for_one_copy(memory: HostMemory) -> None:
    asking: list[int] = []

    class Slow(Numbered):
        def write(self, image: Any) -> None:
            until(lambda: len(asking) == 8)
            super().write(image)

    weights_cache = WeightsCache(memory, device_bytes=1000, host_bytes=1000)
    source = Slow(5)
    item = weights_cache.add(source)

    def use(number: int) -> set[int]:
        asking.append(number)
        with weights_cache.use(item) as region:
            return _read(memory, region)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [{5}] * 8
    assert source.reads == 1


@pytest.mark.slow
@pytest.mark.parametrize("host_bytes", [0, 400, 10_000])
def test_under_concurrency_everybody_sees_his_own_weights(host_bytes: int) -> None:
    """20 avatars of two sizes, room for a few, less memory than the budget says, removals."""
    memory = HostMemory(900)
    weights_cache = WeightsCache(memory, device_bytes=1000, host_bytes=host_bytes)
    items = [weights_cache.add(Numbered(n, 100 if n % 3 else 150)) for n in range(1, 21)]
    wrong: list[tuple[int, set[int]]] = []
    refused = 0

    def work(seed: int) -> None:
        nonlocal refused
        chance = random.Random(seed)
        for _ in range(150):
            index = min(int(chance.expovariate(0.3)), 19)
            try:
                with weights_cache.use(items[index]) as region:
                    seen = _read(memory, region)
                    if chance.random() < 0.2:
                        time.sleep(0.0005)  # others come meanwhile
                    if seen | _read(memory, region) != {index + 1}:
                        wrong.append((index + 1, seen))
            except Overloaded:
                refused += 1
            if chance.random() < 0.03:
                weights_cache.give_up(200)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    stats = weights_cache.stats()
    assert wrong == []
    assert refused < 100
    assert stats.evictions > 20
    assert stats.device_bytes <= 900
    assert stats.host_bytes <= host_bytes
    assert sum(item.size_bytes for item in items if item.region is not None) == stats.device_bytes
    for item in items:
        weights_cache.remove(item)
    assert weights_cache.stats().device_bytes == weights_cache.stats().host_bytes == 0
    weights_cache.close()
    assert (memory.regions, memory.host_blocks) == (0, 0)
    gc.collect()


class Tiers(RuleBasedStateMachine):
    """Any order of uses, overlapping ones too, removals and failures keeps the books right."""

    DEVICE, HOST, REAL = 450, 300, 400

    def __init__(self) -> None:
        super().__init__()
        self.memory = HostMemory(self.REAL)
        self.weights_cache = WeightsCache(
            self.memory, device_bytes=self.DEVICE, host_bytes=self.HOST, max_items=3
        )
        self.sources = [Numbered(n, 100 + 50 * (n % 2)) for n in range(1, 6)]
        self.items = [self.weights_cache.add(source) for source in self.sources]
        self.held: list[tuple[Any, Region, int]] = []

    @rule(index=st.integers(0, 4), fails=st.booleans())
    def enter(self, index: int, fails: bool) -> None:
        source, item = self.sources[index], self.items[index]
        source.error = OSError("no") if fails else None
        use = self.weights_cache.use(item)
        there = item.region is not None or item.host is not None
        try:
            region = use.__enter__()
        except OSError:
            assert fails
            assert not there
        except Unavailable:
            assert item.closed
        except Overloaded:
            assert self.held
        else:
            self.held.append((use, region, index + 1))

    @precondition(lambda self: self.held)
    @rule(chosen=st.integers(0, 100))
    def leave(self, chosen: int) -> None:
        use, _, _ = self.held.pop(chosen % len(self.held))
        use.__exit__(None, None, None)

    @rule(index=st.integers(0, 4))
    def remove(self, index: int) -> None:
        if not self.items[index].closed:
            self.weights_cache.remove(self.items[index])

    @rule(index=st.integers(0, 4))
    def add_again(self, index: int) -> None:
        if self.items[index].closed:
            self.items[index] = self.weights_cache.add(self.sources[index])

    @rule(size=st.integers(1, 300))
    def give_up(self, size: int) -> None:
        self.weights_cache.give_up(size)

    @invariant()
    def books_are_right(self) -> None:
        stats = self.weights_cache.stats()
        assert stats.device_bytes <= min(self.DEVICE, self.REAL)
        assert stats.device_items <= 3
        assert stats.host_bytes <= self.HOST
        assert self.memory.free_bytes() == self.REAL - stats.device_bytes
        assert self.memory.regions == stats.device_items
        for _, region, number in self.held:
            assert _read(self.memory, region) == {number}

    def teardown(self) -> None:
        while self.held:
            self.held.pop()[0].__exit__(None, None, None)
        self.weights_cache.close()
        assert (self.memory.regions, self.memory.host_blocks) == (0, 0)


TestTiers = pytest.mark.slow(Tiers.TestCase)
TestTiers.settings = settings(max_examples=examples(60), stateful_step_count=30, deadline=None)
