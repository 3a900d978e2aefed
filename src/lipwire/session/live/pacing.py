"""The clock of all live sessions of a process: one thread, and a heap of due times."""

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from lipwire.domain import percentile
from lipwire.domain.closing import Closing

_LOG: Final = logging.getLogger(__name__)
_REMEMBERED: Final = 4096
"""Latest moments that the lateness is taken from."""


class Paced(Protocol):
    """Something that is called at times that it chooses itself, by a ``Pacer``."""

    def on_due(self, now: float) -> float | None:
        """Do what is due at time ``now``, quickly, and return the time at which to call this again;
        None: never. Both are in seconds of the pacer's clock. Called in the pacer's thread. Where
        this raises, the error is logged and the object is called no more."""
        ...


class Pacer(Closing):
    """Calls the method ``on_due`` of each of its members when it is due, in a thread of its own; a
    context manager. ``len()`` is the number of members. Times are seconds of its clock, which is
    the monotonic one unless it was made with another. Thread-safe.

    Members are called one after the other, in the order of their due times, so each must be quick.
    One that raises an error is logged and called no more.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: bool = True,
    ) -> None:
        """``clock`` gives seconds. With ``start`` False there is no thread: whoever moves the clock
        calls ``run_due``."""
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Paced]] = []
        self._order = itertools.count()
        self._members: dict[int, int] = {}  # each one's entry of the heap, by its order
        self._late_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._closed = False
        self._thread: threading.Thread | None = None
        if start:
            self._thread = threading.Thread(target=self._run, name="lipwire-pacing", daemon=True)
            self._thread.start()

    def add(self, member: Paced, due_s: float) -> None:
        """Have ``member.on_due`` called for the first time at ``due_s``, in seconds of the pacer's
        clock, and then at each time that ``on_due`` returns. Does nothing once the pacer is closed.
        Where ``member`` was added already, its next call moves to ``due_s``."""
        with self._changed:
            if not self._closed:
                self._push(member, due_s)

    def remove(self, member: Paced) -> None:
        """Call ``member`` no more. Does not wait: a call that has begun in the pacer's thread goes
        on. Does nothing where ``member`` was not added, or was removed already."""
        with self._changed:
            self._members.pop(id(member), None)

    def __len__(self) -> int:
        """How many members there are."""
        with self._changed:
            return len(self._members)

    def lateness_s(self, percent: int) -> float | None:
        """Return how late members were called, in seconds from when they were due: the percentile
        ``percent`` (0 to 100) of the latest 4096 calls of all members; None where there was
        none."""
        with self._changed:
            late_s = list(self._late_s)
        return percentile(late_s, percent) if late_s else None

    def next_due_s(self) -> float | None:
        """Return the time of the next call, in seconds of the pacer's clock; None where no call is
        due at any time. The next call of a member that was removed still counts until its time has
        come."""
        with self._changed:
            return self._heap[0][0] if self._heap else None

    def run_due(self) -> None:
        """Call all members that are due now, in this thread, and return when none is. For a pacer
        that was made without a thread of its own (``start=False``), as in tests with a clock that
        is moved."""
        while True:
            with self._changed:
                now = self._clock()
                if not self._heap or self._heap[0][0] > now:
                    return
                due_s, order, member = heapq.heappop(self._heap)
                if self._members.get(id(member)) != order:
                    continue
                self._late_s.append(now - due_s)
            again_s = None
            try:
                again_s = member.on_due(now)
            except Exception:
                _LOG.exception("a live session failed")
            with self._changed:
                if self._members.get(id(member)) != order:
                    continue  # removed meanwhile
                if again_s is None:
                    del self._members[id(member)]
                else:
                    self._push(member, again_s)

    def close(self) -> None:
        """Call no member any more, end the thread and wait for its end (except where this is called
        in that thread). Closing twice is allowed."""
        with self._changed:
            self._closed = True
            self._members.clear()
            self._heap.clear()
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _push(self, member: Paced, due_s: float) -> None:
        order = self._members[id(member)] = next(self._order)
        heapq.heappush(self._heap, (due_s, order, member))
        if self._heap[0][2] is member:
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed:
                    left_s = self._heap[0][0] - self._clock() if self._heap else None
                    if left_s is not None and left_s <= 0:
                        break
                    self._changed.wait(left_s)
                if self._closed:
                    return
            self.run_due()
