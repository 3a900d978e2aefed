"""How many live sessions a server has, in however many processes."""

import threading
from typing import Final, Protocol

from lipwire.domain import Overloaded

_RETRY_AFTER_S: Final = 5.0


class SessionCount(Protocol):
    """The number of live sessions in all processes of a server, as one of the processes counts and
    sees it. Thread-safe."""

    def begin(self, most: int | None) -> None:
        """Count one more session of this process. Raises Overloaded, with how many run, and counts
        nothing, where all processes together have ``most`` already; None is no limit. Call ``end``
        when the session is over."""
        ...

    def end(self) -> None:
        """Count one session of this process less, one that ``begin`` has counted. Raises
        nothing."""
        ...

    @property
    def running(self) -> int:
        """How many sessions all processes have now."""
        ...


class OwnCount:
    """A ``SessionCount`` for a server that is one process: it counts in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = 0

    def begin(self, most: int | None) -> None:
        """Count one more session. Raises Overloaded, with how many run, and counts nothing, where
        there are ``most`` already; None is no limit. Call ``end`` when the session is over."""
        with self._lock:
            check_most(self._own, most)
            self._own += 1

    def end(self) -> None:
        """Count one session less: one that ``begin`` counted is over."""
        with self._lock:
            self._own -= 1

    @property
    def running(self) -> int:
        """How many sessions run now."""
        return self._own


def check_most(running: int, most: int | None) -> None:
    """Raise Overloaded, with the time after which to try again (5 s), where ``running``, the number
    of live sessions that run, is ``most`` or above. Does nothing otherwise, and where ``most`` is
    None (no limit)."""
    if most is not None and running >= most:
        raise Overloaded(
            f"{running} live sessions run; allowed are {most}", retry_after_s=_RETRY_AFTER_S
        )
