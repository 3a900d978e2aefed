"""Sessions, one for each graph, created once however many threads ask for it.

A session lives as long as a model that uses it: making one again from an optimised graph costs
about 3 ms, while keeping one for every architecture that ever came by has no bound.
"""

import threading
import weakref
from collections.abc import Callable
from typing import Any

from lipwire.engine.devices import memory_returned


class SharedSession:
    """An ``onnxruntime.InferenceSession``; safe to run from several threads at once.

    Its first run takes activations one by one and learns their pattern; later ones take them in one
    piece. The first run therefore gives its memory back, or it would be held twice (full network:
    349 MB instead of 178, at the same speed).
    """

    __slots__ = ("__weakref__", "_session", "_settled")

    def __init__(self, session: Any) -> None:
        self._session = session
        self._settled = False

    def new_binding(self) -> Any:
        """An ``onnxruntime.IOBinding`` for one call at a time."""
        return self._session.io_binding()

    def run(self, binding: Any) -> None:
        """Run what is bound."""
        if self._settled:
            self._session.run_with_iobinding(binding)
        else:
            self._session.run_with_iobinding(binding, memory_returned())
            self._settled = True


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
