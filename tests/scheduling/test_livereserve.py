"""What is kept free for live requests."""

import math

import pytest

from lipwire.domain import Service
from lipwire.scheduling.livereserve import (
    LIVE_FOR_S,
    LIVE_RUN_S,
    LiveReserve,
    fits,
    frames_within,
)

FRAME_S = 0.02
OTHERS: tuple[Service, ...] = ("batch", "render")


@pytest.mark.parametrize("service", ["live", *OTHERS])
def test_nothing_is_kept_where_no_live_request_came(service: Service) -> None:
    reserve = LiveReserve(2, split=True)
    assert reserve.until_s == -math.inf
    assert reserve.may_begin(service, 1, FRAME_S, now=0.0)
    assert reserve.longest_s(service, 0, now=0.0) == math.inf


@pytest.mark.parametrize("service", OTHERS)
def test_while_live_requests_come_one_worker_takes_no_others(service: Service) -> None:
    reserve = LiveReserve(3, split=True)
    reserve.came("anna", 10.0)
    assert reserve.may_begin(service, 1, FRAME_S, now=10.0)
    assert not reserve.may_begin(service, 2, FRAME_S, now=10.0)
    assert reserve.may_begin("live", 2, FRAME_S, now=10.0)


def test_a_single_worker_takes_everything() -> None:
    reserve = LiveReserve(1, split=True)
    reserve.came("anna", 10.0)
    assert reserve.may_begin("render", 0, FRAME_S, now=10.0)


def test_workers_that_share_a_device_are_not_held_back() -> None:
    reserve = LiveReserve(2, split=False)
    reserve.came("anna", 10.0)
    assert reserve.may_begin("batch", 1, FRAME_S, now=10.0)
    assert reserve.longest_s("batch", 0, now=10.0) == LIVE_RUN_S


def test_what_is_kept_ends_some_time_after_the_last_live_request() -> None:
    reserve = LiveReserve(2, split=True)
    reserve.came("anna", 10.0)
    reserve.came("anna", 11.0)
    assert reserve.until_s == 11.0 + LIVE_FOR_S
    before_s = reserve.until_s - 0.01
    assert not reserve.may_begin("batch", 1, FRAME_S, now=before_s)
    assert reserve.longest_s("batch", 0, now=before_s) == LIVE_RUN_S
    assert reserve.longest_s("live", 0, now=before_s) == math.inf
    assert reserve.may_begin("batch", 1, FRAME_S, now=reserve.until_s)
    assert reserve.longest_s("batch", 0, now=reserve.until_s) == math.inf


def test_expected_requests_make_runs_short_and_keep_no_worker_free() -> None:
    reserve = LiveReserve(2, split=True)
    reserve.expect(40.0)
    reserve.expect(20.0)  # takes nothing away
    assert reserve.may_begin("batch", 1, FRAME_S, now=39.9)
    assert reserve.longest_s("batch", 0, now=39.9) == LIVE_RUN_S
    assert reserve.until_s == 40.0


def test_after_a_live_request_what_was_expected_before_stays() -> None:
    reserve = LiveReserve(2, split=True)
    reserve.expect(40.0)
    reserve.came("anna", 10.0)
    assert not reserve.may_begin("batch", 1, FRAME_S, now=11.9)
    assert reserve.may_begin("batch", 1, FRAME_S, now=12.0)
    assert reserve.longest_s("batch", 0, now=39.9) == LIVE_RUN_S


def conversing(*at_s: float, key: str = "anna", workers: int = 2) -> LiveReserve:
    """That of two workers, with live requests for ``key`` at these times."""
    reserve = LiveReserve(workers, split=True)
    for when in at_s:
        reserve.came(key, when)
    return reserve


def test_the_worker_kept_free_takes_what_ends_before_the_next_live_request() -> None:
    reserve = conversing(10.0, 10.16, 10.36)  # again at 10.52 at the earliest
    assert reserve.may_begin("batch", 1, FRAME_S, now=10.4)
    assert reserve.may_begin("batch", 1, FRAME_S, now=10.495), "if it takes 25 ms and not 20"
    assert not reserve.may_begin("batch", 1, FRAME_S, now=10.496)
    assert not reserve.may_begin("batch", 1, 0.2, now=10.4)
    assert reserve.longest_s("batch", 1, now=10.4) == LIVE_RUN_S
    assert reserve.longest_s("batch", 1, now=10.495) == pytest.approx(0.02)
    assert reserve.longest_s("batch", 0, now=10.5) == LIVE_RUN_S, "another worker is kept free"


def test_a_live_request_that_is_late_has_the_worker_wait_for_it() -> None:
    reserve = conversing(10.0, 10.16)
    assert not reserve.may_begin("batch", 1, FRAME_S, now=10.33)
    reserve.came("anna", 10.34)
    assert reserve.may_begin("batch", 1, FRAME_S, now=10.35)


def test_what_nothing_is_known_of_does_not_take_the_worker_kept_free() -> None:
    assert not conversing(10.0, 10.16).may_begin("batch", 1, 0.0, now=10.17)
    assert not conversing(10.0).may_begin("batch", 1, FRAME_S, now=10.01)


def test_of_several_conversations_the_next_counts_and_none_that_has_ended() -> None:
    reserve = conversing(10.0, 10.16)
    for when in (10.05, 10.15):
        reserve.came("bert", when)  # again at 10.25
    assert reserve.longest_s("batch", 1, now=10.22) == pytest.approx(0.024)
    for number in range(20):
        reserve.came("anna", 10.32 + 0.16 * number)
    assert reserve.longest_s("batch", 1, now=13.37) == LIVE_RUN_S


@pytest.mark.parametrize(
    ("frame_s", "most"), [(0.02, 2), (0.04, 1), (0.0133, 3), (0.3, 1), (0.0, 1)]
)
def test_how_many_frames_fit_into_a_run(frame_s: float, most: int) -> None:
    assert frames_within(LIVE_RUN_S, frame_s) == most


def test_a_sum_of_times_fits_however_it_was_rounded() -> None:
    assert fits(0.01 + 0.01 + 0.01 + 0.01 + 1e-12, LIVE_RUN_S)
    assert not fits(0.0401, LIVE_RUN_S)
    assert fits(1e9, math.inf)
