"""A request under way: how much time it has, who asks and for what, and whether anybody still waits
for its answer.

A server opens a ``Call`` for each request and passes it to everything that works for it.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, Literal

from lipwire.domain.access import EVERYTHING, Access
from lipwire.domain.errors import DeadlineExceeded, LipwireError

Service = Literal["live", "batch", "render"]
"""The class of a call, by what its frames are for: a conversation that is watched now, an answer of
some frames, or a file."""

SERVICES: Final[tuple[Service, ...]] = ("live", "batch", "render")
"""All classes, in the order in which schedulers take them."""


class Cancelled(LipwireError):
    """Nobody waits for the answer any more. Raised so that work stops; no client gets it."""


class Call:
    """One request under way. Methods may be called from any thread."""

    __slots__ = ("_access", "_deadline", "_ended", "_lock", "_service", "_tenant", "_watchers")

    def __init__(
        self,
        remaining_s: float | None,
        *,
        service: Service = "batch",
        tenant: str = "",
        access: Access = EVERYTHING,
    ) -> None:
        """``remaining_s`` is how many seconds the caller gives it; None where it has no deadline.
        ``service`` is the call's class. ``tenant`` names who asks; it is empty where there is one
        tenant alone. ``access`` is what whoever asks may do."""
        self._access: Final = access
        self._service: Final[Service] = service
        self._tenant: Final = tenant
        self._deadline = None if remaining_s is None else time.monotonic() + remaining_s
        self._lock: Final = Lock()
        self._ended = False
        self._watchers: list[Callable[[], None]] = []

    @property
    def service(self) -> Service:
        """The call's class, by which schedulers order its work: live, batch or render."""
        return self._service

    @property
    def tenant(self) -> str:
        """Name of the customer who asks; schedulers give the tenants of a class equal shares. All
        calls with an empty name count as those of one tenant."""
        return self._tenant

    @property
    def access(self) -> Access:
        """What the caller may do: operations, avatars, tenant."""
        return self._access

    def classed(self, service: Service, tenant: str) -> "Call":
        """Return a call of class ``service`` and of ``tenant`` with the deadline and access of this
        one. It ends when this one does; it is this one where both are the same."""
        if (service, tenant) == (self._service, self._tenant):
            return self
        call = Call(None, service=service, tenant=tenant, access=self._access)
        call._deadline = self._deadline
        self.on_end(call.end)
        return call

    @property
    def ended(self) -> bool:
        """Whether ``end`` was called: the answer has been sent, or nobody can get it any more."""
        return self._ended

    def remaining_s(self) -> float | None:
        """Return the seconds until the deadline, 0 or more; None where there is none."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - time.monotonic())

    def check(self) -> None:
        """Raise DeadlineExceeded where the deadline has passed, Cancelled where the call has
        ended."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise DeadlineExceeded("the caller's deadline has passed")
        if self._ended:
            raise Cancelled("the caller has gone")

    def on_end(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` called once, without arguments, when the call ends for whatever reason;
        at once if it has ended.

        It may run in another thread, and must be quick and raise nothing, as ``future.cancel``.
        """
        with self._lock:
            if not self._ended:
                self._watchers.append(watcher)
                return
        watcher()

    def end(self) -> None:
        """End the call, and call the watchers of ``on_end``. To be called when the answer is sent,
        and when the client has gone. Ending twice is allowed."""
        with self._lock:
            self._ended = True
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()
