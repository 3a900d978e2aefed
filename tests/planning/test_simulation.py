"""Laws that hold for whatever queues, caches and leases there are."""

from dataclasses import replace

import pytest

from lipwire.domain import FPS, InvalidInput
from lipwire.planning.autoscaling import keda
from lipwire.planning.capacity import refused_share
from lipwire.planning.popularity import Zipf, erlang_b
from lipwire.planning.scenario import Outcome, Scenario
from lipwire.planning.server import ServerSettings
from lipwire.planning.simulation import simulate

pytestmark = pytest.mark.slow

GPU = ServerSettings(frame_s=1 / 320, gpu=True, avatar_bytes=10**9, memory_bytes=10**11)
ONE = Scenario(GPU, servers=1, avatars=1, talking=9.0, measured_s=60_000.0)
"""One server of eleven places, and one avatar."""


@pytest.fixture(scope="module")
def one() -> Outcome:
    return simulate(ONE)


def test_leases_refuse_as_erlangs_formula_says(one: Outcome) -> None:
    assert one.refused_share == pytest.approx(erlang_b(9.0, 11), abs=0.012)
    assert one.refused_memory == 0


def test_littles_law(one: Outcome) -> None:
    admitted_a_second = (one.sessions - one.refused) / one.seconds
    assert one.talking == pytest.approx(admitted_a_second * one.talked_s, rel=0.02)
    assert one.talked_s == pytest.approx(ONE.talk_s, rel=0.03)


def test_leases_give_away_what_sessions_take(one: Outcome) -> None:
    assert one.utilisation == pytest.approx(one.talking * FPS / 320)
    assert one.utilisation <= 0.9


def test_the_same_seed_gives_the_same_again() -> None:
    short = replace(ONE, measured_s=2000.0, avatars=50)
    assert simulate(short) == simulate(short)
    assert simulate(short) != simulate(replace(short, seed=2))


def test_many_servers_refuse_as_their_shares_say() -> None:
    scenario = Scenario(GPU, servers=4, avatars=500, talking=40.0, measured_s=20_000.0)
    shares = [simulate(replace(scenario, seed=seed)).refused_share for seed in range(4)]
    expected = refused_share(Zipf(500, scenario.exponent), 40.0, 11, 4)
    assert sum(shares) / 4 == pytest.approx(expected, abs=0.02)


def test_a_server_less_refuses_more() -> None:
    scenario = Scenario(GPU, servers=3, avatars=500, talking=25.0, measured_s=8000.0)
    refused = [simulate(replace(scenario, servers=n)).refused_share for n in (5, 4, 3, 2)]
    assert refused == sorted(refused)
    assert refused[-1] > refused[0] + 0.05


def test_the_busy_time_of_workers_is_what_was_asked_for() -> None:
    """Ten requests a second of 24 frames, each a 320th of a second: three quarters of the time."""
    scenario = Scenario(
        GPU, servers=1, avatars=20, batches_a_second=10.0, warm_up_s=50.0, measured_s=800.0
    )
    outcome = simulate(scenario)
    assert outcome.refused_batches == 0
    assert outcome.utilisation == pytest.approx(
        outcome.batches * 24 / 320 / outcome.seconds, rel=0.02
    )
    in_hand = sum(outcome.took_s) / outcome.seconds  # by Little's law
    assert 0.75 < in_hand < 3.0


def test_requests_wait_less_for_four_workers_than_for_one() -> None:
    """Workers side by side share a request's frames, so that nothing waits where little comes."""
    waits = []
    for workers in (1, 4):
        server = ServerSettings(frame_s=0.02, workers=workers, avatar_bytes=1, memory_bytes=100)
        scenario = Scenario(
            server, servers=1, avatars=20, batches_a_second=1.2, warm_up_s=50.0, measured_s=1000.0
        )
        outcome = simulate(scenario)
        waits.append(outcome.wait_s(50))
        assert outcome.utilisation == pytest.approx(1.2 * 24 * 0.02 / workers, rel=0.1)
    assert waits[0] > 5 * waits[1]


def test_more_than_can_be_done_is_refused_and_the_rest_is_in_time() -> None:
    """Twice what a server can do: deadlines out of reach are refused, and half is done."""
    scenario = Scenario(
        GPU, servers=1, avatars=20, batches_a_second=26.7, warm_up_s=50.0, measured_s=400.0
    )
    outcome = simulate(scenario)
    assert outcome.refused_batches / outcome.batches == pytest.approx(0.5, abs=0.05)
    assert max(outcome.took_s) <= scenario.batch_deadline_s + 0.1
    assert outcome.utilisation == pytest.approx(1.0, abs=0.01)


def test_live_frames_come_before_batches() -> None:
    scenario = Scenario(
        GPU,
        servers=1,
        avatars=20,
        talking=4.0,
        frames=True,
        batches_a_second=15.0,
        warm_up_s=50.0,
        measured_s=100.0,
    )
    outcome = simulate(scenario)
    assert outcome.live_requests > 1000
    assert outcome.live_refused == 0
    assert outcome.refused_batches > 0


@pytest.mark.parametrize("held", [20, 80])
def test_an_lru_cache_hits_as_the_closed_form_says(held: int) -> None:
    server = replace(GPU, memory_bytes=held * 10**9, policy="lru", load_s=0.0)
    scenario = Scenario(
        server,
        servers=1,
        avatars=300,
        batches_a_second=1.0,
        batch_frames=1,
        warm_up_s=1000.0,
        measured_s=10_000.0,
    )
    expected = Zipf(300, scenario.exponent).lru_hit_rate(held)
    assert simulate(scenario).hit_rate == pytest.approx(expected, abs=0.02)


def test_lfu_finds_more_than_lru() -> None:
    rates = []
    for policy in ("lru", "lfu"):
        server = replace(GPU, memory_bytes=30 * 10**9, policy=policy, load_s=0.0)
        scenario = Scenario(
            server,
            servers=1,
            avatars=500,
            batches_a_second=1.0,
            batch_frames=1,
            warm_up_s=2000.0,
            measured_s=8000.0,
        )
        rates.append(simulate(scenario).hit_rate)
    assert rates[1] > rates[0] + 0.03


def test_sessions_keep_their_avatar_and_are_refused_where_all_are_in_use() -> None:
    server = replace(GPU, memory_bytes=3 * 10**9)
    outcome = simulate(Scenario(server, servers=1, avatars=1000, talking=9.0, measured_s=3000.0))
    assert outcome.refused_memory > 0
    assert outcome.evictions > 0


def test_servers_that_are_added_take_sessions_over() -> None:
    scenario = Scenario(
        GPU,
        servers=4,
        avatars=500,
        talking=16.0,
        measured_s=1800.0,
        surge=2.0,
        surge_s=60.0,
        scaling=keda(target=0.4, start_s=60.0, least=4, most=20),
    )
    scaled = simulate(scenario)
    fixed = simulate(replace(scenario, scaling=None))
    assert scaled.servers > fixed.servers == 4
    assert scaled.moved > 0
    late = [window for window in scaled.windows if window.from_s > 900]
    late_fixed = [window for window in fixed.windows if window.from_s > 900]
    assert sum(w.refused for w in late) < sum(w.refused for w in late_fixed) / 2
    first = next(window.from_s for window in scaled.windows if window.servers > 4)
    assert first >= 60 + 60 - 10  # the surge, and the start


def test_requests_that_were_seen_elsewhere_are_simulated() -> None:
    """By hand: six frames take 0.6 s, a load 0.5 s, and a request waits for the one before it."""
    server = ServerSettings(frame_s=0.1, load_s=0.5, avatar_bytes=1, memory_bytes=10)
    scenario = Scenario(
        server, servers=1, avatars=5, batch_frames=6, warm_up_s=1.0, measured_s=20.0
    )
    requests = [(0.2, 0), (2.0, 0), (2.1, 1), (10.0, 1), (30.0, 0)]
    outcome = simulate(scenario, requests=requests)
    assert (outcome.batches, outcome.refused_batches) == (3, 0)
    assert (outcome.hits, outcome.misses) == (2, 1)
    assert outcome.waits_s == pytest.approx([0.0, 0.0, 0.0])
    assert outcome.took_s == pytest.approx([0.6, 0.5 + 0.6, 0.6])
    both = simulate(scenario, requests=[(0.2, 0), (0.3, 1), (3.0, 0), (3.1, 1)])
    assert both.waits_s == pytest.approx([0.0, 0.5])
    assert both.took_s == pytest.approx([0.6, 1.1])


@pytest.mark.parametrize(
    "change",
    [
        {"servers": 0},
        {"avatars": 0},
        {"exponent": -0.1},
        {"talk_s": 0.0},
        {"measured_s": 0.0},
        {"batch_deadline_s": 0.0},
        {"surge_s": -1.0},
        {"talking": -1.0},
    ],
)
def test_scenarios_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="allowed"):
        replace(ONE, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"frame_s": 0.0}, {"workers": 0}, {"avatar_bytes": 10**12}, {"load_s": -1.0}]
)
def test_servers_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        replace(GPU, **change)  # type: ignore[arg-type]
