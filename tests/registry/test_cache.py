"""A registry's room: what is counted, what has to go, and what never does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.registry.conftest import Value, World, ask, held
from tests.support.waiting import WAIT_S, until

from lipwire.domain import (
    AvatarInvalid,
    Overloaded,
)
from lipwire.registry import Loaded, Registry


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


def test_what_nobody_uses_can_be_evicted_the_least_used_first(world: World) -> None:
    registry = Registry(world.load, policy="lru")
    ask(registry, "a", "b", "c", "d")
    with registry.use("b"):
        assert registry.evict(2) == ["a", "c"]
        assert registry.evict(9) == ["d"]
        assert registry.evict() == []
        assert held(registry) == {"b"}
    assert world.closed() == ["a", "c", "d"]
    assert registry.stats().evictions == 3


def test_a_load_may_evict_others_for_room_that_is_not_counted(world: World) -> None:
    def load(name: str) -> Loaded[Value]:
        assert registry.evict() == ([] if name == "a" else ["a"])
        return world.load(name)

    registry = Registry(load)
    ask(registry, "a", "b")
    assert held(registry) == {"b"}
