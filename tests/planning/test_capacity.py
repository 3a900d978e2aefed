"""How many machines a demand needs."""

import math
from dataclasses import replace

import pytest

from lipwire.domain import InvalidInput
from lipwire.planning.capacity import (
    Demand,
    make_plan,
    places_of_server,
    refused_share,
    server_shares,
    servers_for,
)
from lipwire.planning.figures import Figure, figures
from lipwire.planning.popularity import Zipf, erlang_b

DEMAND = Demand(users=1000, avatars=1000, talking=40.0)


def given(*, gpus: int, **values: float) -> dict[str, Figure]:
    return figures(values, on_gpu=gpus > 0)


def values(**changed: float) -> dict[str, float]:
    return {"frame_ms": 3.125, "besides_share": 0.1, "cores": 32.0} | changed


@pytest.mark.parametrize(
    ("changed", "gpus", "places"),
    [
        ({}, 1, 11),  # 0.9 of 320 frames a second, 25 each
        ({"cores": 1.0}, 1, 10),  # its cores compose no more
        ({"cores": 4.0}, 4, 10),  # a core a GPU
        ({"frame_ms": 20.0, "besides_share": 0.0}, 0, 57),  # 0.9 of 32 cores, half a core each
        ({"frame_ms": 20.0, "besides_share": 0.5}, 0, 32),  # a whole core each
        ({"frame_ms": 39.0}, 1, 1),  # one session is always let in
        ({"frame_ms": 41.0}, 1, 0),  # and not where it is too slow for it
    ],
)
def test_places_of_a_server(changed: dict[str, float], gpus: int, places: int) -> None:
    assert places_of_server(25.0, values(**changed), gpus) == places


def test_twice_the_frames_take_twice_the_place() -> None:
    of = values(frame_ms=1.0)
    assert places_of_server(25.0, of, 1) == 36
    assert places_of_server(50.0, of, 1) == 18


def test_servers_have_all_requests_among_them() -> None:
    shares = server_shares(Zipf(3000, 0.8), 7, naming=0)
    assert len(shares) == 7
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 3 / 7


def test_one_server_refuses_as_erlangs_formula_says() -> None:
    assert refused_share(Zipf(100, 0.8), 9.0, 11, 1) == pytest.approx(erlang_b(9.0, 11))


def test_as_many_servers_as_refuse_no_more_than_is_allowed() -> None:
    zipf = Zipf(1000, 0.5)
    servers = servers_for(zipf, 40.0, 22, 0.01, 2)
    assert refused_share(zipf, 40.0, 22, servers) <= 0.01
    assert refused_share(zipf, 40.0, 22, servers - 1) > 0.01


@pytest.mark.slow
def test_what_needs_most_decides() -> None:
    plan = make_plan(DEMAND, given(gpus=1), gpus=1)
    assert plan.needs[0].what == "speed"
    assert plan.machines == plan.gpus == max(need.machines for need in plan.needs)
    assert plan.refused <= DEMAND.refused
    little = make_plan(DEMAND, given(gpus=1, memory_gb=0.5), gpus=1)
    assert little.needs[0].what == "memory"
    assert little.machines == math.ceil(plan.memory_gb / (0.8 * 0.5))
    slow = make_plan(DEMAND, given(gpus=1, network_gbit=0.01), gpus=1)
    assert slow.needs[0].what == "bandwidth"


@pytest.mark.slow
def test_sums_of_a_plan() -> None:
    plan = make_plan(
        DEMAND, given(gpus=1, package_mb=100, frames_mb=50, network_mb=20, session_mbit=10), gpus=1
    )
    assert plan.disk_gb == pytest.approx(1000 * 170 / 1000)
    assert plan.bandwidth_gbit == pytest.approx(40 * 10 / 1000)
    assert plan.memory_gb == pytest.approx(plan.resident * 50 / 1000)
    assert plan.gpu_memory_gb == pytest.approx(plan.resident * 20 / 1000)
    assert plan.inside_gbit == pytest.approx(40 * 25 * 320 * 320 * 3 * 8 / 1e9)


def test_on_a_processor_networks_are_in_the_machines_memory() -> None:
    plan = make_plan(DEMAND, given(gpus=0, frames_mb=50, network_mb=20), gpus=0)
    assert (plan.gpus, plan.gpu_memory_gb) == (0, 0.0)
    assert plan.memory_gb == pytest.approx(plan.resident * 70 / 1000)


def test_more_people_need_more_machines() -> None:
    machines = [
        make_plan(replace(DEMAND, talking=talking), given(gpus=1), gpus=1).machines
        for talking in (5.0, 40.0, 160.0)
    ]
    assert machines == sorted(set(machines))


def test_an_avatar_that_too_many_want_is_told() -> None:
    plan = make_plan(replace(DEMAND, talking=400.0, exponent=1.5), given(gpus=1), gpus=1)
    assert plan.hot
    assert plan.refused > DEMAND.refused
    assert not make_plan(DEMAND, given(gpus=1), gpus=1).hot


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"users": 0}, "--users is 0"),
        ({"avatars": 0}, "--avatars is 0"),
        ({"talking": 0.0}, "--concurrent is 0"),
        ({"talking": 1001.0}, "--concurrent is 1001"),
        ({"fps": 0.0}, "--fps is 0"),
        ({"refused": 0.0}, "--refused is 0"),
        ({"hit_rate": 1.0}, "--hit-rate is 1"),
    ],
)
def test_demands_out_of_range_are_refused(change: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        replace(DEMAND, **change)  # type: ignore[arg-type]


def test_a_machine_that_holds_no_session_is_refused() -> None:
    with pytest.raises(InvalidInput, match="holds no session: a frame takes 50 ms"):
        make_plan(DEMAND, given(gpus=1, frame_ms=50.0), gpus=1)
    with pytest.raises(InvalidInput, match="--gpus is -1"):
        make_plan(DEMAND, given(gpus=1), gpus=-1)
