"""Many threads do everything at random to one registry; what has to hold whatever they do."""

import random
import threading
import time
from collections import Counter

import pytest
from tests.support.waiting import WAIT_S

from lipwire.domain import AvatarInvalid, DeadlineExceeded, Overloaded
from lipwire.registry import Loaded, Registry
from lipwire.registry.eviction import Policy

NAMES = [f"avatar{number}" for number in range(30)]
MAX_ITEMS = 8
MAX_BYTES = 60
THREADS = 12
TURNS = 250
"""Of each thread."""


class Value:
    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.users = 0
        self.closed = False


class World:
    def __init__(self, seed: int) -> None:
        self.lock = threading.Lock()
        self.random = random.Random(seed)
        self.loading: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.alive = 0
        self.loads = 0
        self.broken: list[str] = []

    def blame(self, what: str) -> None:
        with self.lock:
            self.broken.append(what)

    def load(self, name: str) -> Loaded[Value]:
        with self.lock:
            self.loading[name] += 1
            if self.loading[name] > 1:
                self.broken.append(f"{name} is loaded twice at a time")
            pause_s = self.random.random() * 0.003
            fails = self.random.random() < 0.05
            size = self.random.randrange(1, 12)
        time.sleep(pause_s)  # others ask for it meanwhile
        with self.lock:
            self.loading[name] -= 1
            if fails:
                raise AvatarInvalid(f"{name} is broken today")
            self.alive += 1
            self.loads += 1
        value = Value(name, size)

        def close() -> None:
            with self.lock:
                if value.users:
                    self.broken.append(f"{name} is closed under {value.users} users")
                if value.closed:
                    self.broken.append(f"{name} is closed twice")
                value.closed = True
                self.alive -= 1

        return Loaded(value, size, close)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["lfu", "lru"])
def test_whatever_threads_do(policy: Policy) -> None:
    world = World(seed=7)
    registry = Registry(
        world.load,
        max_items=MAX_ITEMS,
        max_bytes=MAX_BYTES,
        policy=policy,
        idle_s=0.01,
        failure_memory_s=0.01,
        version=lambda name: world.versions[name],
        version_every_s=0.005,
        loaders=4,
        max_waiting_loads=6,
    )
    outcomes: Counter[str] = Counter()

    def use(choose: random.Random, name: str, timeout_s: float | None) -> None:
        with registry.use(name, timeout_s=timeout_s) as value:
            with world.lock:
                value.users += 1
            if value.closed or value.name != name:
                world.blame(f"{name} was given {value.name}, closed: {value.closed}")
            if choose.random() < 0.3:
                time.sleep(choose.random() * 0.002)  # it may be unloaded or changed meanwhile
            if value.closed:
                world.blame(f"{name} was closed in use")
            with world.lock:
                value.users -= 1

    def live(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(TURNS):
            name = NAMES[min(int(choose.expovariate(0.15)), len(NAMES) - 1)]
            what = choose.random()
            try:
                if what < 0.85:
                    use(choose, name, choose.choice([None, 0.0, 0.001, 0.05]))
                    outcomes["used"] += 1
                elif what < 0.9:
                    registry.unload(name)
                elif what < 0.93:
                    registry.load(name, timeout_s=0.05)
                elif what < 0.96:
                    world.versions[name] += 1
                elif what < 0.98:
                    registry.sweep()
                else:
                    stats = registry.stats()
                    assert stats.max_items is not None
                    assert stats.max_bytes is not None
                    if stats.bytes > stats.max_bytes or len(stats.items) > stats.max_items:
                        world.blame(f"{stats.bytes} bytes in {len(stats.items)} items")
            except (AvatarInvalid, DeadlineExceeded, Overloaded) as error:
                outcomes[type(error).__name__] += 1
            except BaseException as error:
                world.blame(repr(error))

    threads = [threading.Thread(target=live, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a thread hangs"
    assert world.broken == []
    assert outcomes["used"] > 100
    stats = registry.stats()
    assert [item for item in stats.items if item.pins] == []
    assert sum(item.bytes for item in stats.items) <= stats.bytes <= MAX_BYTES
    assert registry.close(timeout_s=WAIT_S)
    assert world.alive == 0
    assert registry.stats().bytes == 0
    assert registry.stats().retired == 0
