"""The request that a thread is working on: how long it may take, and whether anybody still waits.

Servicers open a ``Call``; whoever works for them further in (a backend, a pool) asks ``current()``.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Final

import grpc

from lipwire.domain import DeadlineExceeded, LipwireError

_current: ContextVar["Call | None"] = ContextVar("lipwire_call", default=None)


class Cancelled(LipwireError):
    """Nobody waits for the answer any more; raised so that work stops, and sent to nobody."""


class Call:
    """One request under way. Methods may be called from any thread."""

    __slots__ = ("_deadline", "_ended", "_lock", "_watchers")

    def __init__(self, remaining_s: float | None) -> None:
        """``remaining_s`` is what the caller gave it; None where it may take as long as it does."""
        self._deadline = None if remaining_s is None else time.monotonic() + remaining_s
        self._lock: Final = Lock()
        self._ended = False
        self._watchers: list[Callable[[], None]] = []

    @property
    def ended(self) -> bool:
        """Whether the answer is sent, or can reach nobody: cancelled, too late, cut off."""
        return self._ended

    def remaining_s(self) -> float | None:
        """What is left of the caller's time, 0 or more; None where it set no limit."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raises DeadlineExceeded or Cancelled where going on is of no use to anybody."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the caller's deadline has passed")
        if self._ended:
            raise Cancelled("the caller has gone")

    def on_end(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` called once when the call ends, in whichever way; at once if it has.

        It runs in another thread and has to be quick and raise nothing: ``future.cancel`` is.
        """
        with self._lock:
            if not self._ended:
                self._watchers.append(watcher)
                return
        watcher()

    def end(self) -> None:
        """Called by who opened it, and by gRPC when the connection is done with it."""
        with self._lock:
            self._ended = True
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()


def current() -> Call | None:
    """The call that this thread works for; None outside of one."""
    return _current.get()


@contextmanager
def open_call(context: grpc.ServicerContext) -> Iterator[Call]:
    """The call of ``context``, current in this thread for as long as the block lasts."""
    remaining_s = context.time_remaining()
    # gRPC says infinity, or hundreds of years, where the caller set none.
    unlimited = remaining_s is None or not math.isfinite(remaining_s) or remaining_s > 1e9
    call = Call(None if unlimited else remaining_s)
    if not context.add_callback(call.end):
        call.end()
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
        call.end()
