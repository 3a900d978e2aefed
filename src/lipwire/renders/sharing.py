"""What a server does beside its renders where it shares finished videos with others: answering
orders from the cache, and removing what is not to be shared any more."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from lipwire.domain import LipwireError, StorageFailed
from lipwire.domain.closing import Closing
from lipwire.domain.newfiles import remove
from lipwire.renders.cache import RenderCache
from lipwire.renders.joblist import JobList
from lipwire.renders.removals import ALL_OF, Removals
from lipwire.renders.rendering import Made
from lipwire.stores import digest

_LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 10.0
"""How often it is looked for what is to be removed, here and by other servers."""
_EXPIRED_EVERY_S: Final = 3600.0
_MOST_ORDERS: Final = 1000
"""Orders that wait for being looked for in the cache; of more the oldest are looked for when it is
their turn to be made."""
_LEAVE_S: Final = 10.0


class Sharing(Closing):
    """Gives new orders videos from the cache that servers share, before they are made, and removes
    videos from the cache that are no longer to be shared. Does so in a thread of its own, every 10
    s or when a method asks for it. Thread-safe; a context manager."""

    def __init__(
        self,
        cache: RenderCache,
        jobs: JobList,
        removals: Removals,
        *,
        keep: Callable[[str, Made], object],
        forget: Callable[[list[str]], object],
        now: Callable[[], float] = time.time,
    ) -> None:
        """``cache`` is what servers share, ``jobs`` are the server's, and ``removals`` what is to
        be removed from the cache. ``keep(job_id, made)`` is called when ``made``, the video of a
        job that waits, was found; it has to end the job with that video, and the file ``made.path``
        is removed afterwards if it is still there. ``forget(job_ids)`` is called after jobs were
        removed from the list because another server has removed all of their tenant or avatar.
        ``now()`` gives seconds since 1970."""
        self._cache = cache
        self._jobs = jobs
        self._removals = removals
        self._keep = keep
        self._forget = forget
        self._now = now
        self._orders: deque[str] = deque(maxlen=_MOST_ORDERS)
        self._changed = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="lipwire-renders-share", daemon=True)
        self._thread.start()

    def look_for(self, job_id: str) -> None:
        """Have the thread look for the video of the job ``job_id``, which waits, in the cache, and
        give it the video where there is one. Returns at once. Where more than 1000 jobs wait for
        this, the oldest are dropped: they are looked for when it is their turn to be made."""
        self._orders.append(job_id)
        self._changed.set()

    def hide_removed(self) -> None:
        """Hide all videos that are written down to be removed (``Removals``), so that no order is
        given one any more, before this returns; have the thread remove them from the store soon
        after. Where Redis does not answer, they are hidden later. Raises StorageFailed where the
        database cannot be read."""
        for removal in self._removals.pending():
            self._cache.hide(removal)
        self._changed.set()

    def close(self) -> None:
        """End the thread, waiting 10 s at most; removals that are not done stay written down for
        the next start. Closing twice is allowed."""
        self._closed = True
        self._changed.set()
        self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        expired_s = self._now()
        while not self._closed:
            while self._orders and not self._closed:
                job_id = self._orders.popleft()
                try:
                    self._answer(job_id)
                except Exception:  # it is made when it is its turn
                    _LOG.exception("render %s: what others made was not taken", job_id)
            try:
                self._remove()
                if self._now() - expired_s > _EXPIRED_EVERY_S:
                    expired_s = self._now()
                    self._cache.remove_expired()
            except StorageFailed as error:
                _LOG.warning("shared renders are removed later: %s", error)
            except Exception:  # nobody else would do what comes next
                _LOG.exception("shared renders: a round failed; the next is in %g s", _EVERY_S)
            self._changed.wait(_EVERY_S)
            self._changed.clear()

    def _answer(self, job_id: str) -> None:
        made = None
        with suppress(LipwireError):  # whoever makes it will meet the error, too
            job = self._jobs.find(job_id)
            looked = self._cache.look(job) if job.state == "queued" else None
            made = None if looked is None else self._cache.fetch(looked, job)
        if made is not None:
            try:
                self._keep(job_id, made)
            finally:
                remove(made.path)

    def _remove(self) -> None:
        for removal in self._removals.pending():
            if self._closed:
                return
            if self._cache.remove(removal):
                self._removals.done(removal)
        for name, before_s in self._cache.removed_elsewhere().items():
            for kind in ALL_OF:
                for owner in self._jobs.owners_of(kind):
                    if name == f"{kind}:{digest(owner)}":
                        self._forget(self._jobs.remove_all(**{kind: owner}, before_s=before_s))
