"""Sessions, one for each graph, created once however many threads ask for it.

A session lives as long as a model that uses it: making one again from an optimised graph costs
about 3 ms, while keeping one for every architecture that ever came by has no bound.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any


class SharedSession:
    """An ``onnxruntime.InferenceSession``; safe to run from several threads at once."""

    __slots__ = ("__weakref__", "run")

    def __init__(self, run: Any) -> None:
        self.run = run


class SessionPool:
    """Finds the session of a graph by the graph's content, or has it made."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._making: dict[str, threading.Lock] = {}
        self._sessions: weakref.WeakValueDictionary[str, SharedSession] = (
            weakref.WeakValueDictionary()
        )

    def __len__(self) -> int:
        """Sessions in use."""
        return len(self._sessions)

    def get(self, key: str, make: Callable[[], Any]) -> SharedSession:
        """The session of ``key``, made by ``make`` where there is none.

        Threads that ask for one key wait for one of them to make it; other keys do not wait. What
        ``make`` raises is raised here, and the next to ask tries again.
        """
        with self._lock:
            found = self._sessions.get(key)
            if found is not None:
                return found
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                found = self._sessions.get(key)
            if found is None:
                found = SharedSession(make())
                with self._lock:
                    self._sessions[key] = found
                    self._making.pop(key, None)
        return found
