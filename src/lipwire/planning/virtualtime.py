"""Time that goes by as fast as a simulation can be computed."""

import heapq
import itertools
from collections.abc import Callable


class VirtualTime:
    """A clock for simulations, with a list of functions to call at certain times. Calling the
    object itself returns its time, in seconds from 0; ``run`` lets time pass. Not thread-safe."""

    __slots__ = ("_events", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        """The time, in seconds. Not to be changed from outside."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Have ``do`` called, without arguments, ``seconds`` (0 or more) after now, while ``run``
        lets time pass. Functions for the same time are called in the order in which they were given
        here."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), do))

    def run(self, until_s: float) -> int:
        """Let time pass until ``until_s``, in seconds from 0, and call each function that is due by
        then, at its time; a function may add more with ``after``. Returns how many calls were
        made."""
        count = 0
        events = self._events
        while events and events[0][0] <= until_s:
            self.now, _, do = heapq.heappop(events)
            do()
            count += 1
        self.now = max(self.now, until_s)
        return count
