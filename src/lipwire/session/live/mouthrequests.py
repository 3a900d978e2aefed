"""Mouths that a live session has asked for and that have not come yet."""

import logging
import threading
from collections.abc import Callable
from typing import Final

from lipwire.domain import (
    Call,
    Cancelled,
    DeadlineExceeded,
    LipwireError,
    Overloaded,
    Unavailable,
)
from lipwire.domain.tracing import Trace, traced
from lipwire.session.live.conversation import Conversation
from lipwire.session.live.liveavatar import LiveAvatar
from lipwire.session.live.mouthtimes import MouthTimes
from lipwire.session.live.planning import Work
from lipwire.session.live.threads import LiveCounts, LiveThreads

_LOG: Final = logging.getLogger(__name__)


class MouthRequests:
    """Asks the avatar's network for the mouths that one conversation wants, each request in a
    worker thread that waits for it, and gives them to the conversation. ``len()`` is how many
    requests are under way. The conversation's lock guards this object too."""

    def __init__(
        self,
        conversation: Conversation,
        lock: threading.RLock,
        threads: LiveThreads,
        *,
        tenant: str,
        clock: Callable[[], float],
        counts: LiveCounts,
        times: MouthTimes,
        on_done: Callable[[LipwireError | None], None],
        trace: Trace | None = None,
    ) -> None:
        """``lock`` guards ``conversation`` and this object. ``tenant`` is whom the mouths are for,
        and ``clock`` gives seconds. ``counts`` and ``times`` learn of mouths that were made.
        ``on_done`` is called after each request, in its thread and
        without the lock, with the error that the session has to end with; None where it goes
        on. ``trace`` is what the requests belong to."""
        self._trace = trace
        self._conversation = conversation
        self._lock = lock
        self._threads = threads
        self._tenant = tenant
        self._clock = clock
        self._counts = counts
        self._times = times
        self._on_done = on_done
        self._calls: set[Call] = set()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._calls)

    def ask(self, avatar: LiveAvatar) -> bool:
        """Ask ``avatar`` for the mouths that the conversation wants next, if any, in a worker,
        without waiting for them. Returns whether the conversation wanted any. Afterwards the worker
        gives the mouths to the conversation, or tells it that they could not be made, and then
        calls ``on_done``. The caller holds the lock."""
        now = self._clock()
        work = self._conversation.next_frames(now, len(self._calls))
        if work is None:
            return False
        left_s = None if work.due_s is None else max(0.001, work.due_s - now)
        call = Call(left_s, service="live", tenant=self._tenant)
        self._calls.add(call)
        self._threads.workers.submit(self._make, avatar, work, call)
        return True

    def under_way(self) -> list[Call]:
        """Return the calls of the requests under way; the caller holds the lock. Ending one of them
        (``Call.end``, to be done without the lock) ends its request, which then counts as
        failed."""
        return list(self._calls)

    def _make(self, avatar: LiveAvatar, work: Work, call: Call) -> None:
        with traced(self._trace):
            error = self._made(avatar, work, call)
        self._on_done(error)

    def _made(self, avatar: LiveAvatar, work: Work, call: Call) -> LipwireError | None:
        """Make the mouths of ``work``; the error that the session has to end with."""
        error: LipwireError | None = None
        try:
            mouths = avatar.mouths(work.position, work.windows, call)
        except (Cancelled, DeadlineExceeded, Overloaded, Unavailable) as refused:
            _LOG.debug("frames of a live session were not made: %s", refused)
            with self._lock:
                self._conversation.failed(work)
        except LipwireError as failed:
            error = failed
        except Exception:
            _LOG.exception("mouths of avatar %s could not be made", avatar.name)
            error = Unavailable("the session failed")
        else:
            with self._lock:
                mouth_s = self._conversation.made(work, mouths, self._clock())
                self._counts.mouths += len(mouths)
            self._times.took(avatar.name, mouth_s)
        finally:
            call.end()
            with self._lock:
                self._calls.discard(call)
        return error
