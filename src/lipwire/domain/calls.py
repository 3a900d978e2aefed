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
    """Nobody waits for the answer of a request any more. It is raised so that work for the request
    stops, and is never sent to a client."""


class Call:
    """One request to a server while it is worked on: its deadline, class and tenant, and whether
    the client still waits. It is passed to all that works for the request. Methods may be called
    from any thread."""

    __slots__ = (
        "_access",
        "_client",
        "_deadline",
        "_ended",
        "_lock",
        "_service",
        "_tenant",
        "_watchers",
    )

    def __init__(
        self,
        remaining_s: float | None,
        *,
        service: Service = "batch",
        tenant: str = "",
        access: Access = EVERYTHING,
        client: str = "",
    ) -> None:
        """``remaining_s`` is how many seconds from now the caller gives the request; None where it
        has no deadline. ``service`` is the request's class, by which schedulers order work.
        ``tenant`` is the customer who asks; it is empty where customers are not told apart.
        ``access`` is what whoever asks may do, by default everything. ``client`` is what they call
        themselves among those of the tenant, empty where they do not say."""
        self._access: Final = access
        self._client: Final = client
        self._service: Final[Service] = service
        self._tenant: Final = tenant
        self._deadline = None if remaining_s is None else time.monotonic() + remaining_s
        self._lock: Final = Lock()
        self._ended = False
        self._watchers: list[Callable[[], object]] = []

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
    def client(self) -> str:
        """The name that the caller has among those of the tenant, by its own account; empty where
        it gives none. Callers with the same name are shown the same version of an avatar."""
        return self._client

    @property
    def access(self) -> Access:
        """What the caller may do: which operations, with which avatars, for which tenant."""
        return self._access

    def classed(self, service: Service, tenant: str) -> "Call":
        """Return a call with the deadline, access and client of this one, but of class ``service``
        and of ``tenant``; this call itself where both are its own already. When this call is ended,
        the new one is, too."""
        if (service, tenant) == (self._service, self._tenant):
            return self
        call = Call(None, service=service, tenant=tenant, access=self._access, client=self._client)
        call._deadline = self._deadline
        self.on_end(call.end)
        return call

    @property
    def ended(self) -> bool:
        """Whether ``end`` was called, because the answer was sent or the client has gone."""
        return self._ended

    def remaining_s(self) -> float | None:
        """Return how many seconds are left until the deadline, 0 where it has passed; None where
        the call has no deadline."""
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

    def on_end(self, watcher: Callable[[], object]) -> None:
        """Have ``watcher`` called once, without arguments, when ``end`` is called. Where the call
        has ended already, ``watcher`` is called at once, in this thread.

        It may be called in another thread, has to be quick and must not raise, such as
        ``future.cancel``.
        """
        with self._lock:
            if not self._ended:
                self._watchers.append(watcher)
                return
        watcher()

    def end(self) -> None:
        """Mark the call as ended, and call the watchers that ``on_end`` was given. To be called
        when the answer is sent, and when the client has gone. Ending twice is allowed."""
        with self._lock:
            self._ended = True
            watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher()
