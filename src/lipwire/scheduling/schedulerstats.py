"""Numbers about a scheduler."""

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from lipwire.domain import SERVICES, Service, percentile
from lipwire.scheduling.fairness import FairQueue

_REMEMBERED: Final = 512
"""Requests and runs that quantiles are taken from."""

_K = TypeVar("_K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median and 99th percentile of the latest values, 512 at most, or as many of each class; None
    where there are none."""

    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class ClassStats:
    """Numbers about the requests of one class at one moment; counts are since the scheduler was
    made."""

    queued: int
    """Requests of which any frame waits."""
    queued_frames: int
    frames: int
    """Frames that were run."""
    refused_full: int
    """Overloaded at once, or pushed out of the queue."""
    refused_deadline: int
    """Refused at once, or given up in the queue, for a deadline out of reach."""
    wait: Quantiles
    """From submitting to the first frame's beginning."""


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """Numbers about a scheduler at one moment, of all classes together where it is not said
    otherwise; counts are since it was made."""

    queued: int
    """Requests of which any frame waits."""
    queued_frames: int
    queue_size: int
    busy: int
    """Workers that run something now."""
    workers: int
    submitted: int
    finished: int
    failed: int
    cancelled: int
    refused_full: int
    """Overloaded at once, or pushed out by an earlier class, or by a tenant or a key that had less
    in the queue."""
    refused_deadline: int
    """Refused at once, or given up in the queue, for a deadline out of reach."""
    runs: int
    frames: int
    """Frames that were run."""
    joined: int
    """Pieces that shared a run with another request's."""
    wait: Quantiles
    """From submitting to the first frame's beginning."""
    service: Quantiles
    """Seconds that runs took, divided by their frames."""
    classes: Mapping[Service, ClassStats]
    """Numbers of each class, in the order in which workers take them."""


def _remembered() -> deque[float]:
    return deque(maxlen=_REMEMBERED)


@dataclass(slots=True)
class ClassCounts:
    """What a scheduler counts of one class."""

    frames: int = 0
    refused_full: int = 0
    refused_deadline: int = 0
    waits_s: deque[float] = field(default_factory=_remembered)


@dataclass(slots=True)
class Counts:
    """What a scheduler counts of all classes together."""

    submitted: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    runs: int = 0
    joined: int = 0
    frame_times_s: deque[float] = field(default_factory=_remembered)


def stats_of(
    queue: FairQueue[_K],
    queue_size: int,
    busy: int,
    workers: int,
    counts: Counts,
    counts_of: Mapping[Service, ClassCounts],
) -> SchedulerStats:
    """Return the numbers of a scheduler at this moment, with its lock held.

    ``queue_size`` is how many requests its ``queue`` takes; ``busy`` of its ``workers`` threads run
    something. ``counts`` is what it has counted of all classes, ``counts_of`` of each.
    """
    classes = {
        service: ClassStats(
            queue.jobs_of(service),
            queue.frames_of(service),
            counts_of[service].frames,
            counts_of[service].refused_full,
            counts_of[service].refused_deadline,
            quantiles(list(counts_of[service].waits_s)),
        )
        for service in SERVICES
    }
    waits_s = [wait_s for each in counts_of.values() for wait_s in each.waits_s]
    return SchedulerStats(
        queued=len(queue),
        queued_frames=queue.frames,
        queue_size=queue_size,
        busy=busy,
        workers=workers,
        submitted=counts.submitted,
        finished=counts.finished,
        failed=counts.failed,
        cancelled=counts.cancelled,
        refused_full=sum(each.refused_full for each in classes.values()),
        refused_deadline=sum(each.refused_deadline for each in classes.values()),
        runs=counts.runs,
        frames=sum(each.frames for each in classes.values()),
        joined=counts.joined,
        wait=quantiles(waits_s),
        service=quantiles(list(counts.frame_times_s)),
        classes=classes,
    )


def quantiles(values_s: list[float]) -> Quantiles:
    """Return the median and the 99th percentile of ``values_s``, in seconds; both None where it is
    empty."""
    if not values_s:
        return Quantiles(None, None)
    return Quantiles(percentile(values_s, 50), percentile(values_s, 99))
