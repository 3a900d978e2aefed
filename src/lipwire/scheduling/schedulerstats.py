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


class Observer:
    """Gets called when something happens in a scheduler, for metrics. This class does nothing;
    subclasses override its methods. The scheduler's workers call them, some with the scheduler's
    lock held: the methods have to be quick and must not call the scheduler."""

    def waited(self, service: Service, seconds: float) -> None:
        """Called when the first frames of a request of class ``service`` are handed to a worker,
        ``seconds`` after it was submitted."""

    def ran(self, frames: int, seconds: float) -> None:
        """Called after each run of a network: it held ``frames`` frames, perhaps of several
        requests, and took ``seconds``."""


NO_OBSERVER: Final = Observer()


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median (``p50_s``) and 99th percentile (``p99_s``), in seconds, of the latest 512 values;
    None where there are none."""

    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class ClassStats:
    """Numbers about the requests of one class (live, batch or render) at one moment; counts are
    since the scheduler was made.

    ``queued`` is how many requests wait, and ``queued_frames`` how many frames they have;
    ``frames`` is how many frames were run. ``refused_full`` counts requests that found no room, at
    once or when others took their place in the queue; ``refused_deadline`` those whose deadline was
    out of reach. ``wait`` is the time from submitting to the first frame's beginning.
    """

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
    """Numbers about a scheduler at one moment, of all classes of requests together; counts are
    since the scheduler was made.

    ``queued`` requests, of at most ``queue_size``, wait with ``queued_frames`` frames in all;
    ``busy`` of the ``workers`` threads are running something. ``submitted`` requests were accepted,
    of which ``finished``, ``failed`` and ``cancelled`` have ended so. ``refused_full`` ones found
    no room, at once or when others took their place in the queue, and ``refused_deadline`` ones had
    a deadline out of reach. ``runs`` of networks made ``frames`` frames; ``joined`` pieces of
    requests shared a run with another request's. ``wait`` is the time from submitting to the first
    frame's beginning, ``service`` the time of a run divided by its frames. ``classes`` has the
    numbers of each class.
    """

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
    """What a scheduler counts of the requests of one class: ``frames`` that were run, requests
    refused for want of room (``refused_full``) or for their deadline (``refused_deadline``), and
    how long the latest 512 waited, in seconds."""

    frames: int = 0
    refused_full: int = 0
    refused_deadline: int = 0
    waits_s: deque[float] = field(default_factory=_remembered)


class Counts:
    """What a scheduler counts: requests that were accepted (``submitted``) and that ended as
    ``finished``, ``failed`` or ``cancelled``, ``runs`` of networks, pieces of requests that were
    ``joined`` with others in a run, seconds a frame of the latest 512 runs (``frame_times_s``), and
    the counts of each class (``of``). Not thread-safe: the scheduler's lock is held."""

    def __init__(self) -> None:
        self.submitted = self.finished = self.failed = self.cancelled = 0
        self.runs = self.joined = 0
        self.frame_times_s = _remembered()
        self.of: Final = {service: ClassCounts() for service in SERVICES}


def stats_of(
    queue: FairQueue[_K],
    queue_size: int,
    busy: int,
    workers: int,
    counts: Counts,
) -> SchedulerStats:
    """Return the numbers of a scheduler at this moment; the caller holds the scheduler's lock.

    ``queue`` has the requests that wait, of at most ``queue_size``; ``busy`` of the ``workers``
    threads run something. ``counts`` is what the scheduler has counted.
    """
    classes = {
        service: ClassStats(
            queue.jobs_of(service),
            queue.frames_of(service),
            counts.of[service].frames,
            counts.of[service].refused_full,
            counts.of[service].refused_deadline,
            quantiles(list(counts.of[service].waits_s)),
        )
        for service in SERVICES
    }
    waits_s = [wait_s for each in counts.of.values() for wait_s in each.waits_s]
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
