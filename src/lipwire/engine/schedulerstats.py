"""What a scheduler tells of itself."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of the latest 512 at most; None where there are none."""

    p50_s: float | None
    p99_s: float | None


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    queued: int
    """Requests of which any frame waits."""
    queued_frames: int
    queue_size: int
    busy: int
    """Workers at work."""
    workers: int
    submitted: int
    finished: int
    failed: int
    cancelled: int
    refused_full: int
    """Overloaded at once, or pushed out by a key that had less in the queue."""
    refused_deadline: int
    """Refused at once, or given up in the queue, for a deadline out of reach."""
    runs: int
    frames: int
    """Frames run."""
    joined: int
    """Pieces that shared a run with another request's."""
    wait: Quantiles
    """From submitting to the first frame's beginning."""
    service: Quantiles
    """Of a run, per frame."""


def quantiles(values_s: list[float]) -> Quantiles:
    if not values_s:
        return Quantiles(None, None)
    ordered = sorted(values_s)
    p99 = ordered[max(0, math.ceil(len(ordered) * 0.99) - 1)]
    return Quantiles(ordered[(len(ordered) - 1) // 2], p99)
