import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lipwire.avatars.holdings import Loaded
from lipwire.avatars.registry import Registry
from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)

WAIT_S = 10.0


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Value:
    def __init__(self, name: str, version: object) -> None:
        self.name = name
        self.version = version
        self.closings = 0

    def closed(self) -> int:
        return self.closings


class World:
    """What there is to load, and what was done with it."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.errors: dict[str, Exception] = {}
        self.versions: dict[str, object] = {}
        self.gates: dict[str, threading.Event] = {}
        self.begun: list[str] = []
        self.made: list[Value] = []
        self.lock = threading.Lock()

    def load(self, name: str) -> Loaded[Value]:
        version = self.versions.get(name)
        with self.lock:
            self.begun.append(name)
        gate = self.gates.get(name)
        if gate is not None:
            assert gate.wait(WAIT_S)
        if name in self.errors:
            raise self.errors[name]
        value = Value(name, version)
        with self.lock:
            self.made.append(value)

        def close() -> None:
            value.closings += 1

        return Loaded(value, self.sizes.get(name, 1), close)

    def version(self, name: str) -> object:
        version = self.versions.get(name, 0)
        if isinstance(version, Exception):
            raise version
        return version

    def closed(self) -> list[str]:
        return [value.name for value in self.made if value.closings]

    def gate(self, name: str) -> threading.Event:
        self.gates[name] = threading.Event()
        return self.gates[name]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.001)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    for gate in made.gates.values():
        gate.set()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def held(registry: Registry[Value]) -> set[str]:
    return {item.name for item in registry.stats().items}


def ask(registry: Registry[Value], *names: str) -> None:
    for name in names:
        with registry.use(name) as value:
            assert value.name == name
            assert not value.closed()


# -- loading -------------------------------------------------------------------------------------


def test_loads_once_however_many_ask(world: World) -> None:
    registry = Registry(world.load)
    gate = world.gate("anna")
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, registry, "anna") for _ in range(16)]
        until(lambda: world.begun == ["anna"] and registry.stats().misses == 16)
        gate.set()
        for future in asked:
            future.result(WAIT_S)
    assert world.begun == ["anna"]
    assert registry.stats().items[0].uses == 16
    ask(registry, "anna")
    assert world.begun == ["anna"]
    assert registry.stats().hits == 1


def test_who_comes_between_the_end_of_a_load_and_its_own_does_not_load_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(world.load)
    join = registry._join

    def join_late(name: str) -> object:
        monkeypatch.undo()
        ask(registry, name)
        return join(name)

    monkeypatch.setattr(registry, "_join", join_late)
    ask(registry, "anna")
    assert world.begun == ["anna"]
    assert registry.stats().items[0].pins == 0


def test_a_load_that_gives_nonsense_hangs_nobody() -> None:
    registry: Registry[Value] = Registry(lambda name: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(AttributeError), registry.use("anna", timeout_s=WAIT_S):
        pass


def test_a_load_delays_no_other_name(world: World) -> None:
    registry = Registry(world.load)
    ask(registry, "warm")
    world.gate("cold")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, registry, "cold")
        until(lambda: "cold" in world.begun)
        ask(registry, "warm", "other")
        assert not waiting.done()
        world.gates["cold"].set()
        waiting.result(WAIT_S)


def test_a_deadline_ends_the_waiting_and_not_the_load(world: World) -> None:
    registry = Registry(world.load)
    gate = world.gate("anna")
    with (
        pytest.raises(DeadlineExceeded, match=r"^avatar anna was not loaded within 0\.01 s"),
        registry.use("anna", timeout_s=0.01),
    ):
        pass
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(ask, registry, "anna")
        until(lambda: registry.stats().misses == 2)
        gate.set()
        patient.result(WAIT_S)
    assert world.begun == ["anna"]
    assert registry.unload("anna")
    assert world.closed() == ["anna"], "the one who left must have left no pin"


def test_loads_beyond_the_loaders_wait_their_turn_and_then_are_refused(world: World) -> None:
    registry = Registry(world.load, loaders=1, max_waiting_loads=1)
    gate = world.gate("a")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, registry, "a")
        until(lambda: world.begun == ["a"])
        second = pool.submit(ask, registry, "b")
        until(lambda: registry.stats().loading == ("a", "b"))
        with pytest.raises(Overloaded, match=r"^1 avatars wait to be loaded; allowed are 1"):
            ask(registry, "c")
        gate.set()
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert world.begun == ["a", "b"]


def test_a_load_that_all_gave_up_before_it_began_is_not_done(world: World) -> None:
    registry = Registry(world.load, loaders=1)
    gate = world.gate("a")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, registry, "a")
        until(lambda: world.begun == ["a"])
        with pytest.raises(DeadlineExceeded), registry.use("b", timeout_s=0.01):
            pass
        gate.set()
        first.result(WAIT_S)
    until(lambda: registry.stats().loading == ())
    assert world.begun == ["a"]
    ask(registry, "b")


# -- failures ------------------------------------------------------------------------------------


def test_a_failure_is_told_to_all_and_remembered_briefly(world: World, clock: Clock) -> None:
    registry = Registry(world.load, clock=clock, failure_memory_s=5.0)
    world.errors["anna"] = AvatarInvalid("crop_rects.json holds no rectangles")
    with pytest.raises(AvatarInvalid, match=r"^crop_rects.json holds no rectangles$"):
        ask(registry, "anna")
    clock.now += 1.2
    with pytest.raises(AvatarInvalid, match=r"^crop_rects.json .*; seen 1\.2 s ago, .* 5 s$"):
        ask(registry, "anna")
    assert world.begun == ["anna"]
    assert registry.stats().failed == (("anna", "crop_rects.json holds no rectangles"),)
    del world.errors["anna"]
    clock.now += 4.0
    ask(registry, "anna")
    assert registry.stats().failed == ()


def test_a_failure_is_forgotten_when_the_package_changes_or_somebody_insists(
    world: World, clock: Clock
) -> None:
    registry = Registry(world.load, clock=clock, version=world.version)
    for name in ("a", "b", "c"):
        world.errors[name] = AvatarInvalid("broken")
        with pytest.raises(AvatarInvalid):
            ask(registry, name)
    world.errors.clear()
    world.versions["a"] = "mended"
    ask(registry, "a")
    assert registry.load("b")
    with pytest.raises(AvatarInvalid, match="seen"):
        ask(registry, "c")


def test_overload_is_not_remembered_as_a_failure(world: World) -> None:
    registry = Registry(world.load, max_items=1)
    with registry.use("a"), pytest.raises(Overloaded):
        ask(registry, "b")
    ask(registry, "b")


def test_errors_that_are_nobodys_plan_pass_through(world: World) -> None:
    registry = Registry(world.load)
    world.errors["anna"] = ZeroDivisionError("division by zero")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="division by zero"):
            ask(registry, "anna")


def test_names_that_fail_do_not_pile_up(world: World, clock: Clock) -> None:
    registry = Registry(world.load, clock=clock)
    for number in range(1_100):
        world.errors[f"n{number}"] = NotFound("no avatar")
        with pytest.raises(NotFound):
            ask(registry, f"n{number}")
    assert len(registry.stats().failed) == 1024
    clock.now += 6
    registry.sweep()
    assert registry.stats().failed == ()


# -- the budget ----------------------------------------------------------------------------------


def test_what_is_in_use_is_never_evicted(world: World) -> None:
    registry = Registry(world.load, max_items=2, policy="lru")
    with registry.use("a") as a:
        ask(registry, "b", "c", "d")
        assert not a.closed()
        assert held(registry) == {"a", "d"}
    assert world.closed() == ["b", "c"]


def test_all_in_use_and_no_room_is_overload_at_once(world: World) -> None:
    registry = Registry(world.load, max_items=2)
    with registry.use("a"), registry.use("b"):
        with pytest.raises(
            Overloaded, match=r"^no room to load avatar c: 2 avatars .* allowed are 2 avatars$"
        ) as refused:
            ask(registry, "c")
        assert refused.value.retry_after_s
        assert held(registry) == {"a", "b"}
    ask(registry, "c")


def test_bytes_are_counted_as_measured(world: World) -> None:
    world.sizes = {"a": 40, "b": 40, "c": 30, "d": 90}
    registry = Registry(world.load, max_bytes=100, policy="lru")
    ask(registry, "a", "b")
    assert registry.stats().bytes == 80
    ask(registry, "c")
    assert held(registry) == {"b", "c"}
    ask(registry, "d")
    assert held(registry) == {"d"}
    assert registry.stats().bytes == 90


def test_what_is_not_enough_room_is_not_evicted_in_vain(world: World) -> None:
    world.sizes = {"pinned": 80, "small": 10, "large": 60}
    registry = Registry(world.load, max_bytes=100)
    with registry.use("pinned"):
        ask(registry, "small")
        with pytest.raises(Overloaded):
            ask(registry, "large")
        assert held(registry) == {"pinned", "small"}
        assert world.closed() == ["large"], "it had to be loaded to be measured"
        with pytest.raises(Overloaded):
            ask(registry, "large")
        assert world.begun == ["pinned", "small", "large"], "its size is known by now"
        assert registry.stats().bytes == 90


def test_room_is_made_before_loading_what_was_measured_before(world: World) -> None:
    world.sizes = {"a": 60, "b": 60}
    registry = Registry(world.load, max_bytes=100)
    ask(registry, "a", "b")
    gate = world.gate("a")
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(ask, registry, "a")
        until(lambda: world.begun == ["a", "b", "a"])
        assert world.closed() == ["a", "b"]
        assert registry.stats().bytes == 60
        gate.set()
        again.result(WAIT_S)


def test_larger_than_all_room_is_told_and_not_tried_at_every_request(world: World) -> None:
    world.sizes["huge"] = 101
    registry = Registry(world.load, max_bytes=100)
    for _ in range(2):
        with pytest.raises(AvatarInvalid, match=r"^avatar huge takes 101 bytes .* are 100 for"):
            ask(registry, "huge")
    assert world.begun == ["huge"]
    assert world.closed() == ["huge"]
    assert registry.stats().bytes == 0


def test_the_often_used_survive_a_parade_of_newcomers(world: World) -> None:
    registry = Registry(world.load, max_items=3)
    for _ in range(20):
        ask(registry, "favourite")
    for number in range(20):
        ask(registry, f"once{number}")
    assert "favourite" in held(registry)


def test_sweep_closes_what_is_idle_and_not_in_use(world: World, clock: Clock) -> None:
    registry = Registry(world.load, idle_s=60, clock=clock)
    ask(registry, "a", "b")
    with registry.use("c"):
        clock.now += 59
        ask(registry, "b")
        assert registry.sweep() == []
        clock.now += 1
        assert registry.sweep() == ["a"]
        clock.now += 60
        assert registry.sweep() == ["b"]
    assert registry.sweep() == [], "c was in use until now"
    clock.now += 60
    assert registry.sweep() == ["c"]
    assert registry.stats().expirations == 3
    assert registry.stats().bytes == 0


# -- unloading and versions ----------------------------------------------------------------------


def test_unloading_what_is_in_use_closes_it_after_its_last_user(world: World) -> None:
    registry = Registry(world.load)
    with registry.use("a") as first:
        with registry.use("a"):
            assert registry.unload("a")
            assert not registry.unload("a")
            assert held(registry) == set()
            assert registry.stats().retired == 1
        assert not first.closed()
        with registry.use("a") as second:
            assert second is not first
    assert first.closed() == 1
    assert not second.closed()
    assert registry.stats().retired == 0


def test_unloading_during_the_load_gives_it_to_those_who_wait_and_keeps_nothing(
    world: World,
) -> None:
    registry = Registry(world.load)
    gate = world.gate("a")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, registry, "a")
        until(lambda: world.begun == ["a"])
        assert registry.unload("a")
        gate.set()
        waiting.result(WAIT_S)
    until(lambda: world.closed() == ["a"])
    assert held(registry) == set()


def test_asking_again_during_the_load_keeps_what_was_unloaded(world: World) -> None:
    registry = Registry(world.load)
    gate = world.gate("a")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, registry, "a")
        until(lambda: world.begun == ["a"])
        registry.unload("a")
        second = pool.submit(ask, registry, "a")
        until(lambda: registry.stats().misses == 2)
        time.sleep(0.01)  # from counting the miss to joining the load
        gate.set()
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert world.begun == ["a"]
    assert held(registry) == {"a"}


def test_a_changed_version_is_swapped_while_requests_run_on_the_old_one(
    world: World, clock: Clock
) -> None:
    registry = Registry(world.load, version=world.version, clock=clock, version_every_s=1.0)
    world.versions["a"] = "old"
    with registry.use("a") as old:
        world.versions["a"] = "new"
        with registry.use("a") as same:
            assert same is old, "looked at once a second only"
        clock.now += 1
        with registry.use("a") as new:
            assert new.version == "new"
        assert (old.version, old.closed()) == ("old", 0)
    assert old.closed() == 1
    assert not new.closed()
    assert registry.stats().swaps == 1


def test_what_suits_is_used_without_a_look_at_the_disk(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock, version_every_s=1.0)
    world.versions["a"] = "old"
    ask(registry, "a")
    world.versions["a"] = "new"
    clock.now += 100
    with registry.use("a", suits=lambda value: value.version == "old") as value:
        assert value.version == "old"
    assert world.begun == ["a"]


def test_what_does_not_suit_is_looked_for_at_once(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock, version_every_s=1000.0)
    world.versions["a"] = "old"
    ask(registry, "a")
    world.versions["a"] = "new"
    with registry.use("a", suits=lambda value: value.version == "new") as value:
        assert value.version == "new"
    with registry.use("a", suits=lambda value: value.version == "old") as value:
        assert value.version == "new", "there is no other"
    assert world.begun == ["a", "a"]


def test_a_package_that_is_replaced_while_it_is_read_is_read_again(
    world: World, clock: Clock
) -> None:
    def load(name: str) -> Loaded[Value]:
        world.begun.append(name)
        if len(world.begun) == 1:
            world.versions["a"] = "new"
            raise AvatarInvalid("a file is gone")
        return Loaded(Value(name, "new"), 1, lambda: None)

    registry = Registry(load, version=world.version, clock=clock)
    with registry.use("a") as value:
        assert value.version == "new"
    clock.now += 2
    ask(registry, "a")
    assert len(world.begun) == 2


def test_a_swap_delays_only_the_request_that_saw_the_change(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    ask(registry, "a")
    world.versions["a"] = "new"
    clock.now += 2
    gate = world.gate("a")
    with ThreadPoolExecutor(1) as pool:
        sees = pool.submit(lambda: registry.use("a").__enter__())
        until(lambda: len(world.begun) == 2)
        with registry.use("a") as old:
            assert old.version is None
        gate.set()
        assert sees.result(WAIT_S).version == "new"


def test_a_slow_swap_leaves_the_old_one_serving(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    ask(registry, "a")
    world.versions["a"] = "new"
    clock.now += 2
    gate = world.gate("a")
    with registry.use("a", timeout_s=0.02) as old:
        assert old.version is None
    gate.set()
    until(lambda: registry.stats().swaps == 1)
    assert old.closed() == 1


def test_a_broken_new_version_leaves_the_old_one_serving(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    ask(registry, "a")
    world.versions["a"] = "broken"
    world.errors["a"] = AvatarInvalid("no frames")
    for _ in range(3):
        clock.now += 10
        ask(registry, "a")
    assert len(world.begun) == 2, "a version that failed is not tried over and over"
    assert registry.stats().items[0].stale == "no frames"
    with pytest.raises(AvatarInvalid, match="no frames"):
        registry.load("a")
    ask(registry, "a")
    world.errors.clear()
    world.versions["a"] = "mended"
    clock.now += 10
    with registry.use("a") as value:
        assert value.version == "mended"


def test_a_swap_fits_a_budget_of_one(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock, max_items=1)
    ask(registry, "a")
    world.versions["a"] = "new"
    clock.now += 2
    with registry.use("a") as value:
        assert value.version == "new"
    world.versions["a"] = "newer"
    clock.now += 2
    with registry.use("a") as old:  # pinned by nobody: swapped
        assert old.version == "newer"
        world.versions["a"] = "newest"
        clock.now += 2
        with registry.use("a") as kept:  # the old one is in use: there is no room for the new one
            assert kept is old
    clock.now += 2
    with registry.use("a") as value:
        assert value.version == "newest"


def test_a_package_that_is_gone_is_not_served_any_longer(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    with registry.use("a") as old:
        world.versions["a"] = NotFound("no avatar named a")
        clock.now += 2
        ask(registry, "a")  # it may be there again in a moment
        clock.now += 2
        with pytest.raises(NotFound):
            ask(registry, "a")
        assert not old.closed()
    assert old.closed() == 1
    assert held(registry) == set()


def test_a_package_that_is_gone_for_a_moment_is_served_all_the_time(
    world: World, clock: Clock
) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    ask(registry, "a")
    for _ in range(2):
        world.versions["a"] = NotFound("no avatar named a")
        clock.now += 2
        ask(registry, "a")
        world.versions["a"] = 0
        clock.now += 2
        ask(registry, "a")
    world.versions["a"] = NotFound("no avatar named a")
    with pytest.raises(NotFound):
        registry.load("a")  # who insists wants to know


def test_names_of_nobody_cost_nobody_a_place(world: World) -> None:
    registry = Registry(world.load, version=world.version, max_items=2)
    ask(registry, "a", "b")
    for name in ("x", "y", "z"):
        world.versions[name] = NotFound(f"no avatar named {name}; is it a?")
        with pytest.raises(NotFound, match=f"named {name}; is it a"):
            ask(registry, name)
    assert held(registry) == {"a", "b"}
    assert world.begun == ["a", "b"]


def test_a_disk_that_does_not_answer_is_no_reason_to_stop(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    ask(registry, "a")
    world.versions["a"] = OSError(5, "Input/output error")
    clock.now += 2
    ask(registry, "a")
    assert len(world.begun) == 1


def test_load_says_whether_anything_was_loaded(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    assert registry.load("a")
    assert not registry.load("a")
    world.versions["a"] = "new"
    assert registry.load("a"), "asked outright, it looks at once"
    assert [item.pins for item in registry.stats().items] == [0]


# -- closing -------------------------------------------------------------------------------------


def test_close_waits_for_users(world: World) -> None:
    registry = Registry(world.load)
    ask(registry, "idle")
    with ThreadPoolExecutor(1) as pool:
        with registry.use("a") as value:
            closing = pool.submit(registry.close)
            until(lambda: world.closed() == ["idle"])
            with pytest.raises(Unavailable):
                ask(registry, "a")
            assert not closing.done()
            assert not value.closed()
        assert closing.result(WAIT_S)
    assert value.closed() == 1


def test_close_hands_over_to_the_last_user_when_time_is_up(world: World) -> None:
    registry = Registry(world.load)
    with registry.use("a") as value:
        assert not registry.close(timeout_s=0.01)
        assert not value.closed()
    assert value.closed() == 1
    assert registry.close(timeout_s=WAIT_S)


def test_close_refuses_loads_that_wait_and_closes_what_is_still_loading(world: World) -> None:
    registry = Registry(world.load, loaders=1)
    gate = world.gate("a")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, registry, "a")
        until(lambda: world.begun == ["a"])
        second = pool.submit(ask, registry, "b")
        until(lambda: registry.stats().loading == ("a", "b"))
        assert not registry.close(timeout_s=0.01)
        with pytest.raises(Unavailable):
            second.result(WAIT_S)
        gate.set()
        first.result(WAIT_S)
    assert registry.close(timeout_s=WAIT_S)
    assert world.closed() == ["a"]


def test_a_value_that_cannot_be_closed_is_counted_out_all_the_same(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def load(name: str) -> Loaded[Value]:
        def close() -> None:
            raise OSError("unmapped already")

        return Loaded(Value(name, None), 1, close)

    registry = Registry(load, max_items=1)
    ask(registry, "a", "b")
    assert registry.stats().bytes == 1
    assert "avatar a could not be closed" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_items": 0}, "max_items is 0"),
        ({"max_bytes": -1}, "max_bytes is -1"),
        ({"loaders": 0}, "loaders is 0"),
        ({"policy": "fifo"}, "eviction policy is 'fifo'; allowed are lfu and lru"),
    ],
)
def test_settings_that_make_no_sense(
    world: World, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        Registry(world.load, **arguments)  # type: ignore[arg-type]


def test_errors_raised_by_users_unpin(world: World) -> None:
    registry = Registry(world.load)
    with pytest.raises(KeyError), registry.use("a"):
        raise KeyError
    assert registry.stats().items[0].pins == 0


def test_hits_among_thousands_take_microseconds(world: World) -> None:
    names = [f"avatar_{number:05d}" for number in range(5_000)]
    registry = Registry(world.load, max_items=len(names))
    for name in names:
        registry.load(name)
    best_s = float("inf")
    for _ in range(3):
        start_s = time.thread_time()
        for name in names:
            with registry.use(name):
                pass
        best_s = min(best_s, (time.thread_time() - start_s) / len(names))
    assert best_s < 20e-6  # about 2 on an idle core
    assert len(world.begun) == len(names)
