"""Loads that failed a short while ago, whose error is raised again for later callers."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from lipwire.domain import LipwireError, StorageFailed

_MAX_FAILURES: Final = 1024
"""So many names are remembered; the oldest is forgotten first."""
_DISK_S: Final = 2.0
"""For so long at most it is remembered that the disk failed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A load that failed: the ``error`` that it raised, the ``version`` of what was to be loaded
    (None where versions are not looked at), and when it failed, ``at_s`` in seconds of the
    registry's clock."""

    error: BaseException
    version: object
    """The version of what could not be loaded; when that has changed, another attempt is made."""
    at_s: float


class Failures:
    """The latest failed load of each name, kept for ``memory_s`` seconds, so that what cannot be
    loaded is not tried for each request. A failure of the disk (StorageFailed) is kept for two
    seconds at most, because the disk may have room again. Not thread-safe."""

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._failures: OrderedDict[str, Failure] = OrderedDict()

    def note(self, name: str, failure: Failure) -> None:
        """Keep ``failure`` as the latest one of ``name``, in the place of an earlier one. At most
        1024 names are kept; beyond that the oldest failure is forgotten."""
        self._failures[name] = failure
        self._failures.move_to_end(name)
        while len(self._failures) > _MAX_FAILURES:
            self._failures.popitem(last=False)

    def recent(self, name: str, now: float) -> Failure | None:
        """Return the failure of ``name``; None where there is none, or it is too old at ``now``:
        ``memory_s`` seconds or more, two at most for a failure of the disk. ``now`` is in seconds
        of the clock that gave ``Failure.at_s``."""
        failure = self._failures.get(name)
        if failure is not None and now - failure.at_s >= self._kept_s(failure.error):
            del self._failures[name]
            return None
        return failure

    def forget(self, name: str) -> None:
        """Forget the failure of ``name``, if there is one."""
        self._failures.pop(name, None)

    def sweep(self, now: float) -> None:
        """Forget all failures for which ``recent`` would return None at ``now``, a time in seconds
        of the clock that gave ``Failure.at_s``."""
        for name in list(self._failures):
            self.recent(name, now)

    def messages(self) -> tuple[tuple[str, str], ...]:
        """Return (name, message of the error) of each failure that is kept, the oldest first; those
        that are too old are among them until ``sweep`` or ``recent`` forgets them."""
        return tuple((name, str(failure.error)) for name, failure in self._failures.items())

    def told_again(self, failure: Failure, now: float) -> BaseException:
        """Return an error for a later caller to raise. It has the type of the error of ``failure``,
        and its message says at its end how many seconds before ``now`` the load failed, and when it
        is tried again; ``now`` is in seconds of the clock that gave ``failure.at_s``. For an error
        that is not a LipwireError it is a copy with the same message, or the error itself where
        that cannot be copied."""
        error = failure.error
        if not isinstance(error, LipwireError):
            return fresh(error)
        again = type(error)(
            f"{error}; seen {max(now - failure.at_s, 0.0):.1f} s ago, tried again when the package"
            f" changes or after {self._kept_s(error):g} s"
        )
        again.__cause__ = error
        return again

    def _kept_s(self, error: BaseException) -> float:
        """For how long a failure with that error is kept."""
        disk = isinstance(error, StorageFailed)
        return min(self._memory_s, _DISK_S) if disk else self._memory_s


def fresh(error: BaseException) -> BaseException:
    """Return a copy of ``error`` for another thread to raise, so that each has its own traceback.

    Returns ``error`` itself where it cannot be copied.
    """
    try:
        told = copy.copy(error)
    except Exception:  # its constructor wants something else
        return error
    told.__cause__ = error
    return told
