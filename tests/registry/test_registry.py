from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.registry.conftest import World, ask, held
from tests.support.waiting import WAIT_S, Clock, until
from tests.support.work import calls_made

from lipwire.domain import (
    InvalidInput,
    Unavailable,
)
from lipwire.registry import Registry


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


def test_under_a_lower_limit_what_is_too_much_goes_when_something_is_loaded(world: World) -> None:
    registry = Registry(world.load, max_items=4, policy="lru")
    ask(registry, "a", "b", "c", "d")
    registry.limit_items(2)
    assert held(registry) == {"a", "b", "c", "d"}
    ask(registry, "e")
    assert held(registry) == {"d", "e"}
    assert registry.stats().max_items == 2
    registry.limit_items(3)
    ask(registry, "f")
    assert held(registry) == {"d", "e", "f"}


def test_load_says_whether_anything_was_loaded(world: World, clock: Clock) -> None:
    registry = Registry(world.load, version=world.version, clock=clock)
    assert registry.load("a")
    assert not registry.load("a")
    world.versions["a"] = "new"
    assert registry.load("a"), "asked outright, it looks at once"
    assert [item.pins for item in registry.stats().items] == [0]


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


@pytest.mark.slow
@pytest.mark.parametrize("kept", [3, 5_000])
def test_a_hit_takes_no_more_work_among_thousands(world: World, kept: int) -> None:
    registry = Registry(world.load, max_items=kept)
    names = [f"avatar_{number:05d}" for number in range(kept)]
    for name in names:
        registry.load(name)

    def hit() -> None:
        with registry.use(names[kept // 2]):
            pass

    hit()
    assert calls_made(hit) < 60  # 20 here; looking at each would take 5,000
    assert len(world.begun) == len(names)
