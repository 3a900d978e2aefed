"""Sessions, one for each graph, opened once however many threads ask for it.

A session lives as long as a model that uses it: opening one again from an optimised graph costs
about 3 ms, while keeping one for every architecture that ever came by has no bound.
"""

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from lipwire.engine.keyedlocks import KeyedLocks

S = TypeVar("S")


class SessionPool(Generic[S]):
    """Open sessions, each found by a hash of its graph and kept as long as somebody refers to it,
    so that networks with equal graphs share one. Thread-safe."""

    def __init__(self) -> None:
        self._making = KeyedLocks()
        self._sessions: weakref.WeakValueDictionary[str, S] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        """Sessions in use."""
        return len(self._sessions)

    def get(self, key: str, make: Callable[[], S]) -> S:
        """Return the session of ``key``, a text that is the same for graphs of equal content (made
        of a hash). Where no such session is open, call ``make()`` and return its result, which is
        kept as long as somebody refers to it.

        Threads that ask for the same key wait for one of them to open the session; threads that ask
        for other keys do not wait. An error that ``make`` raises is raised here too, and the next
        call tries again.
        """
        with self._making.held(key):
            found = self._sessions.get(key)
            if found is None:
                found = self._sessions[key] = make()
        return found
