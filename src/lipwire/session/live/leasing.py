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
        under the name ``holder`` (a session's id). Where ``holder`` has a lease already, renew
        that, and change it to ``model_id`` where it was for another avatar. ``call`` is the request
        that this is done for. Waits for the answer.

        Raises Overloaded, with how many leases are held and how many fit, where no more fit, and
        InvalidInput where ``holder`` is empty or longer than 200 characters. As the avatar's
        network may have to be loaded for this, also raises NotFound where there is no such avatar,
        AvatarInvalid where its network cannot be loaded or fails, Unavailable where no server or
        device can answer, and DeadlineExceeded where ``call``'s time is over before.
        """
        ...

    def release(self, holder: str) -> None:
        """End the lease of ``holder`` (a session's id), waiting for that. Does nothing where
        ``holder`` has none. Raises nothing."""
        ...


class SessionLeases:
    """The leases of the live sessions of a process: the shares of a machine's time that ``Leases``
    reserves for them. Made without ``Leases``, it limits nothing, and every method does nothing.
    Thread-safe."""

    def __init__(self, leases: Leases | None, threads: LiveThreads) -> None:
        """``leases`` reserves the machine's time; None where sessions are not limited.
        ``threads.workers`` end leases, because that may take the time of a request to another
        server."""
        self._leases = leases
        self._threads = threads
        self._lock = threading.Lock()
        self._ending: set[Future[None]] = set()

    @property
    def limited(self) -> bool:
        """Whether sessions need a lease; False where this object was made without ``Leases``."""
        return self._leases is not None

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Reserve the machine's time that a session with avatar ``model_id`` takes, for 4 seconds
        (``LEASE_S``), under the name ``holder``, the session's id. Where ``holder`` has a lease
        already, renew it, and change it to ``model_id`` where it was for another avatar. ``call``
        is the request that this is done for. Waits for the answer.

        Raises Overloaded where no more fit, and InvalidInput where ``holder`` is empty or longer
        than 200 characters. As the avatar's network may have to be loaded for this, also raises
        NotFound where there is no such avatar, AvatarInvalid where its network cannot be loaded or
        fails, Unavailable where no server or device can answer, and DeadlineExceeded where
        ``call``'s time is over before.
        """
        if self._leases is not None:
            self._leases.acquire(holder, model_id, call)

    def release(self, holder: str) -> None:
        """End the lease of ``holder``, a session's id, and wait for it. See ``Leases.release``."""
        if self._leases is not None:
            self._leases.release(holder)

    def release_later(self, holder: str) -> None:
        """Have a worker end the lease of ``holder`` (a session's id), and return at once;
        ``settle`` waits for such ends."""
        if self._leases is None:
            return
        ending = self._threads.workers.submit(self._leases.release, holder)
        with self._lock:
            self._ending.add(ending)
        ending.add_done_callback(self._ended)

    def settle(self, timeout_s: float) -> None:
        """Wait, at most ``timeout_s`` seconds, until the leases have ended for which
        ``release_later`` was called before this. Returns None whether they have ended or not."""
        with self._lock:
            ending = tuple(self._ending)
        wait(ending, timeout_s)

    def _ended(self, ending: Future[None]) -> None:
        with self._lock:
            self._ending.discard(ending)
