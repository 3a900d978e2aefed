"""Loads that failed a short while ago, and how they are told to the next who ask."""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from lipwire.domain import LipwireError

_MAX_FAILURES: Final = 1024
"""So many names are remembered; the oldest is forgotten first."""


@dataclass(frozen=True, slots=True)
class Failure:
    error: BaseException
    version: object
    """Of what could not be loaded; changed, it is worth another attempt."""
    at_s: float


class Failures:
    """What failed, by name, for ``memory_s``. Not thread-safe."""

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._failures: OrderedDict[str, Failure] = OrderedDict()

    def note(self, name: str, failure: Failure) -> None:
        self._failures[name] = failure
        self._failures.move_to_end(name)
        while len(self._failures) > _MAX_FAILURES:
            self._failures.popitem(last=False)

    def recent(self, name: str, now: float) -> Failure | None:
        """The failure of ``name``, where it is not too long ago."""
        failure = self._failures.get(name)
        if failure is not None and now - failure.at_s >= self._memory_s:
            del self._failures[name]
            return None
        return failure

    def forget(self, name: str) -> None:
        self._failures.pop(name, None)

    def sweep(self, now: float) -> None:
        """Forget all that are too long ago."""
        for name in list(self._failures):
            self.recent(name, now)

    def messages(self) -> tuple[tuple[str, str], ...]:
        """(name, message) of each."""
        return tuple((name, str(failure.error)) for name, failure in self._failures.items())

    def told_again(self, failure: Failure, now: float) -> BaseException:
        """The error for somebody who asks again."""
        error = failure.error
        if not isinstance(error, LipwireError):
            return fresh(error)
        again = type(error)(
            f"{error}; seen {max(now - failure.at_s, 0.0):.1f} s ago, tried again when the package"
            f" changes or after {self._memory_s:g} s"
        )
        again.__cause__ = error
        return again


def fresh(error: BaseException) -> BaseException:
    """An error for one more thread to raise: a traceback belongs to one of them."""
    try:
        told = copy.copy(error)
    except Exception:  # its constructor wants something else
        return error
    told.__cause__ = error
    return told
