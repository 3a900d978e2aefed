"""What those are told whose frames are not run."""

import pytest
from tests.scheduling.schedules import frames

from lipwire.scheduling import refusals
from lipwire.scheduling.jobs import Job


def job(deadline: float | None) -> Job[str]:
    return Job(
        "anna",
        "pixels",
        *frames(8),
        deadline=deadline,
        submitted_s=100.0,
        withdraw=lambda job: False,
    )


def test_a_deadline_out_of_reach_says_what_would_be_needed_and_what_there_is() -> None:
    assert str(refusals.out_of_reach(job(100.5), 0.8, now=100.1)) == (
        "8 frames would take about 800 ms with those that wait; the deadline is in 400 ms"
    )


def test_one_that_waited_too_long_says_how_many_frames_are_left() -> None:
    late = job(100.5)
    late.taken = 3
    assert str(refusals.too_late(late, now=100.45)) == (
        "after 450 ms of waiting, 5 of 8 frames cannot be made by the deadline any more"
    )


@pytest.mark.parametrize(
    ("backlog_s", "retry_s"), [(0.0, 0.01), (0.02, 0.01), (3.0, 1.5), (20.0, 10.0), (60.0, 10.0)]
)
def test_a_full_queue_says_when_half_of_it_will_be_done(backlog_s: float, retry_s: float) -> None:
    refused = refusals.full(20, 16, backlog_s)
    assert str(refused) == "20 requests wait for a worker; allowed are 16"
    assert refused.retry_after_s == pytest.approx(retry_s)
