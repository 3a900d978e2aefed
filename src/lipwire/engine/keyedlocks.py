"""Locks by key: one thread at a time for each key, and threads with other keys do not wait."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class KeyedLocks:
    """A lock for each key, made when it is first needed and dropped when nobody uses it.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._users: dict[Hashable, int] = {}
        """Threads that hold the lock of a key or wait for it."""

    @contextmanager
    def held(self, key: Hashable) -> Iterator[None]:
        """Context manager: hold the lock of ``key`` for the block. Waits while another thread holds
        the lock of an equal key. Not reentrant."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
            self._users[key] = self._users.get(key, 0) + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._locks[key]
