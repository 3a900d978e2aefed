from collections import Counter

import pytest

from lipwire.rpc.backends.affinity import rendezvous

SERVERS = tuple(f"10.0.0.{number}:50051" for number in range(5))
MODELS = tuple(f"user_{number}" for number in range(2000))


def homes(weights: dict[str, float]) -> dict[str, str]:
    return {model: rendezvous(model, weights)[0] for model in MODELS}


def test_every_server_gets_its_share() -> None:
    counts = Counter(homes(dict.fromkeys(SERVERS, 1.0)).values())
    # 400 each; the standard deviation is 18.
    assert all(320 < counts[server] < 480 for server in SERVERS)


def test_when_a_server_leaves_only_its_models_move_and_to_all_the_others() -> None:
    weights = dict.fromkeys(SERVERS, 1.0)
    before = homes(weights)
    del weights[SERVERS[2]]
    after = homes(weights)
    moved = {model for model in MODELS if before[model] != after[model]}
    assert moved == {model for model in MODELS if before[model] == SERVERS[2]}
    assert set(Counter(after[model] for model in moved)) == set(weights)


def test_models_go_where_the_order_said_they_would() -> None:
    weights = dict.fromkeys(SERVERS, 1.0)
    for model in MODELS[:100]:
        order = rendezvous(model, weights)
        assert sorted(order) == sorted(SERVERS)
        left = {server: 1.0 for server in SERVERS if server != order[0]}
        assert rendezvous(model, left) == order[1:]


def test_a_growing_weight_only_brings_models_in() -> None:
    returning = SERVERS[0]
    seen: set[str] = set()
    for weight in (0.05, 0.3, 0.6, 1.0):
        now = homes({**dict.fromkeys(SERVERS, 1.0), returning: weight})
        mine = {model for model in MODELS if now[model] == returning}
        assert seen <= mine
        assert len(mine) == pytest.approx(len(MODELS) * weight / (4 + weight), rel=0.3, abs=12)
        seen = mine


def test_the_order_is_the_same_in_every_process() -> None:
    # Written down once: two compositing servers have to agree, whatever their hash seed.
    assert rendezvous("sanders", {"a:1": 1.0, "b:1": 1.0, "c:1": 1.0}) == ORDER_OF_SANDERS


def test_any_name_has_a_place() -> None:
    for name in ("", "ü/..\0", "\ud800", "x" * 10_000):
        assert len(rendezvous(name, {"a:1": 1.0, "b:1": 0.5})) == 2


ORDER_OF_SANDERS = ["c:1", "b:1", "a:1"]
