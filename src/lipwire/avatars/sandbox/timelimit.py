"""How much time a process in the sandbox has left."""

import time
from collections.abc import Callable


class TimeLimit:
    """The time that a process may take: ``limit_s`` seconds for its work, and as many again for
    waiting until another process has done the same work; ``works`` and ``waits`` say which of
    the two it does. Time counts from when the object is made, as work at first (``waiting`` is
    False). ``clock`` returns seconds. Not thread-safe."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._since_s = clock()
        self._taken_s = {False: 0.0, True: 0.0}
        self.waiting = False

    def works(self) -> None:
        """Count time as work from now on."""
        self._count()
        self.waiting = False

    def waits(self) -> None:
        """Count time as waiting from now on."""
        self._count()
        self.waiting = True

    @property
    def left_s(self) -> float:
        """Seconds left of the limit that time counts against now, the one for work or the one for
        waiting; at least 0."""
        self._count()
        return max(0.0, self._limit_s - self._taken_s[self.waiting])

    def _count(self) -> None:
        now_s = self._clock()
        self._taken_s[self.waiting] += now_s - self._since_s
        self._since_s = now_s
