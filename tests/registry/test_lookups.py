"""What a registry gives when packages change on disk."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.registry.conftest import Value, World, ask, held
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import (
    AvatarInvalid,
    NotFound,
)
from lipwire.registry import Loaded, Registry


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


def test_what_was_replaced_there_and_back_while_it_was_read_is_read_again(
    world: World, clock: Clock
) -> None:
    def load(name: str) -> Loaded[Value]:
        if not world.begun:
            world.versions[name] = "old"  # between the look and the reading
        return world.load(name)

    registry = Registry(load, version=world.version, clock=clock, version_every_s=1.0)
    world.versions["a"] = "new"
    with registry.use("a") as value:
        assert value.version == "old"
    world.versions["a"] = "new"
    clock.now += 1
    with registry.use("a") as value:
        assert value.version == "new"
    clock.now += 1
    ask(registry, "a")
    assert world.begun == ["a", "a"], "what stays as it was is not read again"


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
    until(lambda: old.closed() == 1)
    assert registry.stats().swaps == 1


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


def test_a_disk_that_does_not_answer_is_no_reason_to_stop(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    ask(registry, "a")
    world.versions["a"] = OSError(5, "Input/output error")
    clock.now += 2
    ask(registry, "a")
    assert len(world.begun) == 1


def test_what_tells_versions_is_brought_up_to_date_where_the_newest_is_needed(
    world: World, clock: Clock
) -> None:
    def refresh(name: str) -> None:
        world.versions[name] = published[name]

    published: dict[str, object] = {"a": "old"}
    world.versions["a"] = "old"
    registry = Registry(
        world.load, version=world.version, refresh=refresh, clock=clock, version_every_s=1.0
    )
    ask(registry, "a")
    published["a"] = "new"
    clock.now += 2.0
    with registry.use("a") as value:
        assert value.version == "old"
    assert registry.load("a")
    with registry.use("a", suits=lambda held: held.version == "new") as value:
        assert value.version == "new"
