from concurrent.futures import wait

import numpy as np
import pytest
from tests.scheduling.schedules import Make, Network, busy, expected, frames
from tests.support.waiting import WAIT_S, Clock

from lipwire.domain import (
    DeadlineExceeded,
    Overloaded,
)


def test_a_full_queue_refuses_and_says_when_to_come_again(make: Make, network: Network) -> None:
    scheduler = make(queue_size=2)
    busy(scheduler, network)
    for _ in range(2):
        scheduler.submit("a", *frames(1))
    with pytest.raises(Overloaded, match=r"^2 requests wait .*; allowed are 2$") as refused:
        scheduler.submit("a", *frames(1))
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s > 0
    assert scheduler.stats().refused_full == 1
    assert scheduler.stats().queued == 2


def test_a_full_queue_takes_in_a_key_that_has_less(make: Make, network: Network) -> None:
    scheduler = make(queue_size=3, join=False)
    busy(scheduler, network)
    flood = [scheduler.submit("busy", *frames(1)) for _ in range(3)]
    quiet = scheduler.submit("quiet", *frames(1))
    with pytest.raises(Overloaded):
        flood[-1].result(WAIT_S)
    network.go_on_freely()
    for job in (*flood[:2], quiet):
        np.testing.assert_array_equal(job.result(WAIT_S), expected(1))


def test_a_free_worker_needs_no_place_in_the_queue(make: Make, network: Network) -> None:
    scheduler = make(workers=4, queue_size=1)
    jobs = [scheduler.submit(f"k{number}", *frames(1)) for number in range(4)]
    network.go_on_freely()
    assert len(wait(jobs, WAIT_S).done) == 4


def test_a_deadline_out_of_reach_is_refused_before_any_work(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    network.frame_s = 0.1
    network.go_on()
    scheduler.submit("a", *frames(8)).result(WAIT_S)
    busy(scheduler, network)
    scheduler.submit("a", *frames(8))
    with pytest.raises(DeadlineExceeded, match=r"^8 frames would take about 1[67]00 ms .* 1500 ms"):
        scheduler.submit("a", *frames(8), deadline=clock.now + 1.5)
    scheduler.submit("a", *frames(8), deadline=clock.now + 1.8)
    with pytest.raises(DeadlineExceeded):
        scheduler.submit("new key", *frames(50), deadline=clock.now + 1.0)
    assert scheduler.stats().refused_deadline == 2
    assert len(network.runs) == 2


def test_a_key_with_little_is_not_refused_for_what_others_have_waiting(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    network.frame_s = 0.1
    network.go_on()
    scheduler.submit("busy", *frames(8)).result(WAIT_S)
    busy(scheduler, network)
    for _ in range(5):
        scheduler.submit("busy", *frames(50))
    # 25 s of work wait, of which 0.2 s are before this one's second frame if turns are fair.
    scheduler.submit("quiet", *frames(2), deadline=clock.now + 1.0)


def test_a_deadline_that_has_passed_is_refused(make: Make, clock: Clock) -> None:
    with pytest.raises(DeadlineExceeded):
        make().submit("a", *frames(1), deadline=clock.now)


def test_what_has_become_hopeless_in_the_queue_is_not_run(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(join=False)
    blocker = busy(scheduler, network)
    late = scheduler.submit("late", *frames(1), deadline=clock.now + 1.0)
    patient = scheduler.submit("patient", *frames(1))
    clock.now += 2.0
    network.go_on_freely()
    with pytest.raises(DeadlineExceeded, match=r"^after 2000 ms of waiting, 1 of 1 frames"):
        late.result(WAIT_S)
    patient.result(WAIT_S)
    blocker.result(WAIT_S)
    assert [key for key, _ in network.runs] == ["blocker", "patient"]


def test_late_requests_make_room_in_a_full_queue(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(queue_size=1)
    busy(scheduler, network)
    late = scheduler.submit("a", *frames(1), deadline=clock.now + 1.0)
    clock.now += 2.0
    scheduler.submit("a", *frames(1))
    with pytest.raises(DeadlineExceeded):
        late.result(WAIT_S)


def test_a_slow_moment_does_not_refuse_for_ever(make: Make, network: Network, clock: Clock) -> None:
    scheduler = make()
    network.go_on_freely()
    network.frame_s = 10.0
    scheduler.submit("a", *frames(1)).result(WAIT_S)
    network.frame_s = 0.0
    with pytest.raises(DeadlineExceeded):
        scheduler.submit("a", *frames(1), deadline=clock.now + 1.0)
    clock.now += 60
    scheduler.submit("a", *frames(1), deadline=clock.now + 1.0).result(WAIT_S)
