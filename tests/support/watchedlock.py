"""A lock that says when somebody waits for it."""

import threading


class WatchedLock:
    """Takes the place of a ``threading.Lock`` that is used in ``with`` blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waited_for = threading.Event()
        """Somebody has had to wait."""

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.waited_for.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
