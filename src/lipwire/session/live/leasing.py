"""What live sessions reserve of whatever makes their mouths."""

import threading
from concurrent.futures import Future, wait
from typing import Protocol

from lipwire.domain import Call
from lipwire.session.live.threads import LiveThreads


class Leases(Protocol):
    """Reserves, for each live session while it lives, a share of the time of whatever makes the
    mouths, so that no more sessions begin than can be served. A reservation is a lease; it lasts
    ``LEASE_S`` (4) seconds unless it is renewed. Thread-safe."""

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve the time that a session with avatar ``model_id`` takes, for ``LEASE_S`` seconds,
        under the name ``holder`` (a session's id), or renew the lease that ``holder`` has, for
        another avatar where ``model_id`` is one. ``call`` is the request that this is done for.
        Waits for the answer. Raises Overloaded, with how many are held and how many fit, where no
        more fit, and what loading the avatar's network raises (NotFound, AvatarInvalid,
        Unavailable, ...)."""
        ...

    def release(self, holder: str) -> None:
        """End the lease of ``holder`` (a session's id), waiting for that; nothing where it has
        none. Raises nothing."""
        ...


class SessionLeases:
    """The leases of the live sessions of a process, which ``Leases`` gives; where there is none,
    nothing is limited, and every method does nothing. Thread-safe."""

    def __init__(self, leases: Leases | None, threads: LiveThreads) -> None:
        """``leases`` says what can be carried; None where that is not limited. ``threads.workers``
        end leases, which may take the time of a request to another server."""
        self._leases = leases
        self._threads = threads
        self._lock = threading.Lock()
        self._ending: set[Future[None]] = set()

    @property
    def limited(self) -> bool:
        """Whether there are leases at all."""
        return self._leases is not None

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve the time of a session with avatar ``model_id`` for ``holder``, the session's id,
        as part of ``call``, or renew its lease. See ``Leases.acquire``."""
        if self._leases is not None:
            self._leases.acquire(holder, model_id, call)

    def release(self, holder: str) -> None:
        """End the lease of ``holder``, a session's id, and wait for it. See ``Leases.release``."""
        if self._leases is not None:
            self._leases.release(holder)

    def release_later(self, holder: str) -> None:
        """Have a worker end the lease of ``holder`` (a session's id), and return at once."""
        if self._leases is None:
            return
        ending = self._threads.workers.submit(self._leases.release, holder)
        with self._lock:
            self._ending.add(ending)
        ending.add_done_callback(self._ended)

    def settle(self, timeout_s: float) -> None:
        """Wait until the leases have ended that ``release_later`` was called for before, at most
        ``timeout_s`` seconds. Does not say whether they have."""
        with self._lock:
            ending = tuple(self._ending)
        wait(ending, timeout_s)

    def _ended(self, ending: Future[None]) -> None:
        with self._lock:
            self._ending.discard(ending)
