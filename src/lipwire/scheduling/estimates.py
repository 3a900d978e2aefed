"""How long a network takes for a frame, learnt from its runs."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from statistics import median
from typing import Final

_WEIGHT: Final = 0.25
"""Of the newest run in the running mean."""
_BELIEVED_S: Final = 5.0
"""A mean that no run has confirmed for this long counts half, and half again: one slow moment must
not refuse every request for ever, for refused requests measure nothing."""
_MAX_KEYS: Final = 4096
_RECENT: Final = 64
RECENT_S: Final = 60.0
"""How many runs of a key a median is taken of, and how old they may be."""


class ServiceTimes:
    """Mean seconds that a frame takes, by kind of work. Not thread-safe.

    Each kind belongs to a ``group`` of similar kinds, whose mean stands in for a kind that was
    never run.
    """

    def __init__(self) -> None:
        self._means: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # (mean, when)

    def learn(self, kind: Hashable, group: Hashable, frame_s: float, now: float) -> None:
        """Take in a run that took ``frame_s`` seconds a frame and ended at time ``now``, in seconds
        of any one clock.

        ``kind`` says what was run, as (key of a network, form of its input); ``group`` is the set
        of similar kinds that it belongs to, as the form alone.
        """
        for name in (("kind", kind), ("group", group)):
            known = self._means.get(name)
            if known is None:
                mean = frame_s
            else:
                believed = _believed(known, now)
                mean = believed + _WEIGHT * (frame_s - believed)
            self._means[name] = (mean, now)
            self._means.move_to_end(name)
        while len(self._means) > _MAX_KEYS:
            self._means.popitem(last=False)

    def frame_s(self, kind: Hashable, group: Hashable, now: float) -> float:
        """Return how many seconds a frame of ``kind`` is expected to take: the running mean of its
        runs, or, where it was never run, that of all kinds of ``group``; 0 where none of them was.

        ``now`` is the present time, in seconds of the clock that ``learn`` is given. A mean whose
        last run was more than 5 s ago counts less, half for each further 5 s.
        """
        known = self._known(kind, group)
        return 0.0 if known is None else _believed(known, now)

    def latest_s(self, kind: Hashable, group: Hashable) -> float:
        """Return the running mean of the seconds that a frame of ``kind`` took as of its last run,
        however long ago that was; where it was never run, that of all kinds of ``group``, and 0
        where none of them was."""
        known = self._known(kind, group)
        return 0.0 if known is None else known[0]

    def _known(self, kind: Hashable, group: Hashable) -> tuple[float, float] | None:
        return self._means.get(("kind", kind)) or self._means.get(("group", group))


class RecentTimes:
    """Median seconds that a frame took, by key, over the latest runs. Not thread-safe.

    A run that took long by chance hardly moves a median, and a slow minute is forgotten after
    another.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, deque[tuple[float, float]]] = OrderedDict()

    def learn(self, key: Hashable, frame_s: float, now: float) -> None:
        """Take in a run of ``key`` that took ``frame_s`` seconds a frame and ended at time
        ``now``, in seconds of any one clock."""
        runs = self._runs.setdefault(key, deque(maxlen=_RECENT))
        runs.append((now, frame_s))
        self._runs.move_to_end(key)
        while len(self._runs) > _MAX_KEYS:
            self._runs.popitem(last=False)

    def frame_s(self, key: Hashable, now: float) -> float | None:
        """Return the median of the seconds that a frame of ``key`` took in its latest runs, 64 at
        most, that ended within 60 s (RECENT_S) before ``now``, a time in seconds of the clock that
        ``learn`` is given; None where there is none."""
        times = [frame_s for when, frame_s in self._runs.get(key, ()) if now - when <= RECENT_S]
        return median(times) if times else None


def _believed(known: tuple[float, float], now: float) -> float:
    mean, when = known
    unconfirmed_s = now - when - _BELIEVED_S
    if unconfirmed_s <= 0:
        return mean
    return mean * float(0.5 ** min(unconfirmed_s / _BELIEVED_S, 60.0))
