"""What the clients of a cluster have seen: when answers came, what was wrong, what was lost."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

_KEPT: Final = 20
"""Lines of each kind; the rest is only counted."""


class Flow:
    """What one client gets, one thing after the other: batches, or pictures. Thread-safe."""

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        """``name`` says what it is in messages; ``clock`` gives seconds."""
        self.name: Final = name
        self._clock = clock
        self._times = [clock()]

    def came(self) -> None:
        """Note that something right has come."""
        self._times.append(self._clock())

    def longest_gap(self, since_s: float, until_s: float) -> tuple[float, float]:
        """Return the longest time between ``since_s`` and ``until_s`` in which nothing came, and
        when it began, in seconds."""
        inside = [moment for moment in list(self._times) if since_s < moment < until_s]
        ends = [since_s, *inside, until_s]
        return max((later - earlier, earlier) for earlier, later in itertools.pairwise(ends))


class Record:
    """What all clients together have seen. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self.clock: Final = clock
        self.counts: Counter[str] = Counter()
        """What came of requests, by kind."""
        self.wrong: list[str] = []
        """Lines about frames and videos that are not what they have to be."""
        self.lost: list[str] = []
        """Lines about requests without an answer, or with one that none should have."""
        self.foreign: list[str] = []
        """Lines about what a tenant got of another one."""
        self._flows: list[Flow] = []
        self._lock = threading.Lock()

    def flow(self, name: str) -> Flow:
        """Return what a further client, called ``name``, gets."""
        flow = Flow(name, self.clock)
        with self._lock:
            self._flows.append(flow)
        return flow

    def count(self, what: str, number: int = 1) -> None:
        """Count ``number`` more of ``what``."""
        with self._lock:
            self.counts[what] += number

    def is_wrong(self, line: str) -> None:
        """Note something wrong."""
        self._add("wrong", self.wrong, line)

    def is_lost(self, line: str) -> None:
        """Note a request that is lost."""
        self._add("lost", self.lost, line)

    def is_foreign(self, line: str) -> None:
        """Note something of another tenant."""
        self._add("foreign", self.foreign, line)

    def longest_gap(self, since_s: float, until_s: float) -> tuple[float, float, str]:
        """Return the longest time between two moments in which a client got nothing, when it began,
        both in seconds, and which client that was."""
        with self._lock:
            flows: Iterable[Flow] = list(self._flows)
        return max((*flow.longest_gap(since_s, until_s), flow.name) for flow in flows)

    def _add(self, kind: str, lines: list[str], line: str) -> None:
        with self._lock:
            self.counts[kind] += 1
            if len(lines) < _KEPT:
                lines.append(line)
