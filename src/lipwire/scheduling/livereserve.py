"""What is kept free for live requests: one worker, and others' runs that end soon.

A run is never interrupted, so that a live request waits for those under way. While live requests
come, or are said to come, runs of other classes are therefore short; and while they come, one
worker takes those alone that end before the next live request is expected: a conversation asks for
its frames at regular times.
"""

import math
from collections import deque
from collections.abc import Hashable
from itertools import pairwise
from typing import Final

from lipwire.domain import FPS, Service

LIVE_FOR_S: Final = 2.0
"""So long after a live request was submitted another one may come at any moment."""
LIVE_RUN_S: Final = 1 / FPS
"""The longest that a run of another class is expected to take meanwhile: the time of one frame."""
_LATER: Final = 1.25
"""So much longer than expected a run may take, beside others that compute."""
_ARRIVALS: Final = 5
"""Of so many live requests of a network it is known when they came."""

_ROUNDING: Final = 1e-9
"""So that 40 ms hold two frames of 20."""


class LiveReserve:
    """Keeps a device free enough for live requests, which may come at any moment: says whether a
    worker of a scheduler may begin a run of another class, and how long that may take. Not
    thread-safe; times are seconds of any one clock."""

    def __init__(self, workers: int, *, split: bool) -> None:
        """``workers`` is how many threads run networks. ``split`` says whether they compute side by
        side; only then is one of them kept free, because otherwise all workers share one device."""
        self._most_others = max(1, workers - 1) if split else workers
        self._live_until_s = -math.inf
        self._came: dict[Hashable, deque[float]] = {}
        """When the latest live requests of each network came."""
        self.until_s = -math.inf
        """Until then something is kept; from then on nothing need be asked. Not to be changed from
        outside."""

    def came(self, key: Hashable, now: float) -> None:
        """Record that a live request for the network ``key`` was submitted at time ``now``. For 2 s
        from then on further ones are expected: runs of other classes are to be short, and a worker
        is kept free. From the times of the latest 5 of each network the time of its next one is
        estimated."""
        self._live_until_s = now + LIVE_FOR_S
        self.expect(self._live_until_s)
        self._came.setdefault(key, deque(maxlen=_ARRIVALS)).append(now)
        for other in [name for name, at in self._came.items() if at[-1] + LIVE_FOR_S <= now]:
            del self._came[other]

    def expect(self, until_s: float) -> None:
        """Have runs of other classes than live be short (40 ms) until ``until_s``, a time of the
        clock; an earlier time than was given before changes nothing. No worker is kept free for
        this alone."""
        self.until_s = max(self.until_s, until_s)

    def may_begin(self, service: Service, others: int, frame_s: float, now: float) -> bool:
        """Return whether a free worker may begin a run of class ``service`` at time ``now``, while
        ``others`` of the workers have runs that are not live. A frame of the run takes about
        ``frame_s`` seconds; 0 where that is not known. True for live runs; for others, too, while
        no live request is expected, or while ``others`` is less than the limit: with ``split`` one
        less than the workers, but at least 1; without it all workers. Otherwise True only where one
        frame ends before the next live request is expected."""
        if service == "live" or now >= self._live_until_s or others < self._most_others:
            return True
        return frame_s > 0 and fits(frame_s, self._left_s(now))

    def longest_s(self, service: Service, others: int, now: float) -> float:
        """Return how many seconds a run of class ``service`` that a free worker begins at ``now``
        may be expected to take, while ``others`` of the workers have runs that are not live:
        infinity for live ones and while no live request is expected, else 0.04 at most, and less,
        even below 0, where it has to end before the next live request. Where ``may_begin`` returns
        True, one frame may be run all the same."""
        if service == "live" or now >= self.until_s:
            return math.inf
        if now >= self._live_until_s or others < self._most_others:
            return LIVE_RUN_S
        return min(LIVE_RUN_S, self._left_s(now))

    def _left_s(self, now: float) -> float:
        """What a run may be expected to take that ends before the next live request comes: that is
        expected as soon after the latest one of a network as ever two of its latest came one after
        the other, and at once where only one has come."""
        next_s = min(
            at[-1] + min((b - a for a, b in pairwise(at)), default=0.0)
            for at in self._came.values()
        )
        return (next_s - now) / _LATER


def fits(needed_s: float, longest_s: float) -> bool:
    """Return whether a run that needs ``needed_s`` seconds ends within ``longest_s`` seconds; a
    nanosecond more is allowed, for rounding."""
    return needed_s <= longest_s + _ROUNDING


def frames_within(longest_s: float, frame_s: float) -> int:
    """Return how many frames of ``frame_s`` seconds fit into a run of ``longest_s``: one at least,
    and one where ``frame_s`` is 0, which says that the time of such frames is not known."""
    return max(int((longest_s + _ROUNDING) / frame_s), 1) if frame_s > 0 else 1
