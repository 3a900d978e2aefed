"""Threads that load: at most so many at a time, gone when there is nothing to load.

Loading a compiled avatar takes milliseconds and compiling one takes minutes, so each has a thread
of its own; making one costs about 0.1 ms.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from lipwire.domain import Overloaded

T = TypeVar("T")

_RETRY_AFTER_S = 0.25


class Loaders(Generic[T]):
    """Up to ``most`` threads that carry out tasks, the loads of a registry, in the order in which
    ``begin`` was called for them. A thread is started when there is a task for it, and ends when
    none is left. Thread-safe."""

    def __init__(
        self, carry_out: Callable[[T], None], *, most: int, max_waiting: int, kind: str
    ) -> None:
        """``carry_out`` is called with each task, in another thread, and must not raise. ``most``
        tasks are carried out at a time, and at most ``max_waiting`` wait for that. ``kind`` names
        what is loaded in messages ("avatar")."""
        self._carry_out = carry_out
        self._most = most
        self._max_waiting = max_waiting
        self._kind = kind
        self._waiting: deque[T] = deque()
        self._busy = 0
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)

    def begin(self, task: T) -> None:
        """Have ``task`` carried out in another thread, and return at once. It is begun now, or
        waits where ``most`` tasks are being carried out. Raises Overloaded where ``max_waiting``
        tasks wait already, or no thread can be started."""
        with self._lock:
            if self._busy >= self._most:
                if len(self._waiting) >= self._max_waiting:
                    raise Overloaded(
                        f"{len(self._waiting)} {self._kind}s wait to be loaded; allowed are"
                        f" {self._max_waiting}",
                        retry_after_s=_RETRY_AFTER_S,
                    )
                self._waiting.append(task)
                return
            self._busy += 1
        thread = threading.Thread(
            target=self._work, args=(task,), name=f"lipwire-load-{self._kind}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._busy -= 1
                self._idle.notify_all()
            raise Overloaded(
                f"no thread can be started to load a {self._kind} with",
                retry_after_s=_RETRY_AFTER_S,
            ) from error

    def withdraw(self) -> list[T]:
        """Remove the tasks that wait and that no thread has begun, and return them, the first
        first; they are not carried out. Those that have begun go on."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        return waiting

    def wait_idle(self, until_s: float | None) -> bool:
        """Wait until no thread carries out a task, and return True. Returns False where some thread
        still does at time ``until_s``, in seconds of ``time.monotonic`` (None: no limit)."""
        with self._lock:
            while self._busy:
                left_s = None if until_s is None else until_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                self._idle.wait(left_s)
        return True

    def _work(self, task: T) -> None:
        while True:
            self._carry_out(task)
            with self._lock:
                # Under one lock, or a task that comes in between would wait for nobody.
                if not self._waiting:
                    self._busy -= 1
                    self._idle.notify_all()
                    return
                task = self._waiting.popleft()
