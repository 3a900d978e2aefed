"""Loads of a registry: begun once, waited for, refused, failed and remembered."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.registry.conftest import Value, World, ask, held
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    LipwireError,
    NotFound,
    Overloaded,
    StorageFailed,
    Unavailable,
)
from lipwire.registry import Loaded, Registry


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
    join = registry._loads.join

    def join_late(name: str) -> object:
        monkeypatch.undo()
        ask(registry, name)
        return join(name)

    monkeypatch.setattr(registry._loads, "join", join_late)
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


def test_what_is_for_an_owner_to_mend_is_logged(
    world: World, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(world.load, clock=clock)
    world.errors |= {
        "anna": AvatarInvalid("frames/0.png is cut off"),
        "bert": NotFound("there is no bert"),
        "cleo": Overloaded("full"),
    }
    for name in ("anna", "anna", "bert", "cleo"):
        with pytest.raises(LipwireError):
            ask(registry, name)
    assert [record.getMessage() for record in caplog.records] == [
        "avatar anna cannot be loaded: frames/0.png is cut off"
    ]


def test_a_disk_that_failed_is_tried_again_after_two_seconds(world: World, clock: Clock) -> None:
    registry = Registry(world.load, clock=clock, failure_memory_s=5.0)
    world.errors["anna"] = StorageFailed("the disk is full")
    with pytest.raises(StorageFailed):
        ask(registry, "anna")
    clock.now += 1.9
    with pytest.raises(StorageFailed, match=r"^the disk is full; seen 1\.9 s ago, .* after 2 s$"):
        ask(registry, "anna")
    assert world.begun == ["anna"]
    del world.errors["anna"]
    clock.now += 0.1
    ask(registry, "anna")


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
        until(lambda: registry._loads.under_way["a"].waiters == 2)
        gate.set()
        first.result(WAIT_S)
        second.result(WAIT_S)
    assert world.begun == ["a"]
    assert held(registry) == {"a"}


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


def test_names_of_nobody_cost_nobody_a_place(world: World) -> None:
    registry = Registry(world.load, version=world.version, max_items=2)
    ask(registry, "a", "b")
    for name in ("x", "y", "z"):
        world.versions[name] = NotFound(f"no avatar named {name}; is it a?")
        with pytest.raises(NotFound, match=f"named {name}; is it a"):
            ask(registry, name)
    assert held(registry) == {"a", "b"}
    assert world.begun == ["a", "b"]


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
