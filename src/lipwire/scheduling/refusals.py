"""What the scheduler says to those whose frames it does not run."""

from typing import Final

from lipwire.domain import DeadlineExceeded, Overloaded
from lipwire.scheduling.jobs import Job, K

_RETRY_S: Final = (0.01, 10.0)
"""Bounds of ``retry_after_s``."""


def out_of_reach(job: Job[K], needed_s: float, now: float) -> DeadlineExceeded:
    """Return, without raising it, the error for ``job``, which has a deadline, where its frames and
    those that are run before them would take ``needed_s`` seconds from ``now`` on, which is too
    long."""
    assert job.deadline is not None
    return DeadlineExceeded(
        f"{job.frames} frames would take about {needed_s * 1000:.0f} ms with those that"
        f" wait; the deadline is in {(job.deadline - now) * 1000:.0f} ms"
    )


def too_late(job: Job[K], now: float) -> DeadlineExceeded:
    """Return, without raising it, the error for ``job``, which waited until ``now``, when its
    deadline cannot be kept any more. ``now`` is in seconds, by the clock of ``job.submitted_s``."""
    return DeadlineExceeded(
        f"after {(now - job.submitted_s) * 1000:.0f} ms of waiting, {job.left} of"
        f" {job.frames} frames cannot be made by the deadline any more"
    )


def full(waiting: int, queue_size: int, backlog_s: float) -> Overloaded:
    """Return, without raising it, the error for a job for which there is no room, because
    ``waiting`` others wait and ``queue_size`` is the limit. ``backlog_s`` is how many seconds the
    workers need for the jobs that are run before it. The error says to try again after half of
    that, but 10 ms at least and 10 s at most."""
    low_s, high_s = _RETRY_S
    return Overloaded(
        f"{waiting} requests wait for a worker; allowed are {queue_size}",
        retry_after_s=min(max(backlog_s / 2, low_s), high_s),
    )
