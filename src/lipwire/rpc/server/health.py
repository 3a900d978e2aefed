"""gRPC health checking v1: what a server says of itself, to who asks and to who watches.

grpcio-health-checking's own servicer sends while it holds the lock that every check and every end
of a watch take. gRPC's one thread of events ends the watches and confirms what was sent: where a
watch ended while another was told of a change, each waited for the other, and the server answered
nobody any more. Here nothing is sent under a lock.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_log: Final = logging.getLogger("lipwire.rpc")

LIVENESS: Final = "liveness"
"""The service name under which gRPC health checking says whether the process works. A server that
waits for an inference server, or drains, is not serving; only one that is not live is better
started anew."""

_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING

_THREADS: Final = 8
"""Watches that are told of a change at the same time."""
_TAKES_S: Final = 2.0
"""A watch whose client has not taken an answer of some bytes after these seconds is cancelled."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers gRPC's service grpc.health.v1.Health: with the statuses that ``set`` was called with
    (the server as a whole, the empty name, serves from the beginning). The service name
    ``LIVENESS`` ("liveness") stands for the process itself, and is answered with what the function
    ``live``, given when it is made, says at that moment. Thread-safe. ``Check`` and ``Watch`` are
    called by gRPC."""

    def __init__(self, live: Callable[[], bool]) -> None:
        """``live()`` says whether the parts of the process work; it is called for each check of
        ``LIVENESS`` and must return within seconds. One that raises is not live."""
        self._live = live
        self._lock: Final = threading.Lock()
        self._statuses: Final[dict[str, int]] = {"": _SERVING}
        self._watches: Final[dict[str, set[_Watch]]] = {}
        self._draining = False
        self._threads: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="lipwire-watch")

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the name in the .proto
        """Return the status of the service that ``request`` (a ``HealthCheckRequest``) names:
        SERVING or NOT_SERVING, of ``LIVENESS`` by asking now. A service that was never ``set`` is
        answered with the code NOT_FOUND, by gRPC's ``context``."""
        if request.service == LIVENESS:
            live = _SERVING if self._asked() else _NOT_SERVING
            return health_pb2.HealthCheckResponse(status=live)
        with self._lock:
            status = self._statuses.get(request.service)
        if status is None:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse()
        return health_pb2.HealthCheckResponse(status=status)

    def Watch(  # type: ignore[override]  # noqa: N802  # gRPC's form without a thread a call
        self, request: Any, context: Any, send: Callable[[Any], object]
    ) -> None:
        """Send the status of the service that ``request`` (a ``HealthCheckRequest``) names, by
        ``send(response)``: the first before this returns, and further ones after each change, in a
        thread of this object, until the call of ``context`` ends. One is sent at a time; of changes
        that follow one another quickly, the last is sent. A service that was never ``set`` is
        SERVICE_UNKNOWN. A client that does not take an answer within 2 s is cut off."""
        watch = _Watch(request.service, send, context.cancel, telling=True)
        with self._lock:
            self._watches.setdefault(watch.service, set()).add(watch)
        if context.add_callback(lambda: self._ended(watch)):
            self._tell(watch)
        else:
            self._ended(watch)

    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]  # gRPC's own mark

    def set(self, service: str, status: int) -> None:
        """Say ``status``, a ``HealthCheckResponse.ServingStatus``, of the service ``service`` (its
        full name; empty: the server as a whole) from now on, to who asks and to who watches.
        Returns at once. Does nothing once ``drain`` was called."""
        with self._lock:
            if self._draining:
                return
            self._say(service, status)

    def drain(self) -> None:
        """Say NOT_SERVING of every service that was ``set`` from now on, to those who watch as
        well, whatever ``set`` is called with; ``LIVENESS`` goes on as before. Returns at once.
        Calling it twice is allowed."""
        with self._lock:
            if self._draining:
                return
            self._draining = True
            for service in self._statuses:
                self._say(service, _NOT_SERVING)
            self._threads.shutdown(wait=False)

    def _say(self, service: str, status: int) -> None:
        """Under the lock. However often a status changes, one thread tells a watch of it."""
        self._statuses[service] = status
        for watch in self._watches.get(service, ()):
            if not watch.telling:
                watch.telling = True
                self._threads.submit(self._tell, watch)

    def _tell(self, watch: "_Watch") -> None:
        """Send the status until the client has the last one, and wait for that."""
        while (status := self._untold(watch)) is not None:
            late = threading.Timer(_TAKES_S, watch.cancel)
            late.daemon = True
            late.start()
            try:
                watch.send(health_pb2.HealthCheckResponse(status=status))
            finally:
                late.cancel()
            watch.told = status

    def _untold(self, watch: "_Watch") -> int | None:
        with self._lock:
            status = self._statuses.get(watch.service, _UNKNOWN)
            if status != watch.told:
                return status
            watch.telling = False
            return None

    def _ended(self, watch: "_Watch") -> None:
        with self._lock:
            watches = self._watches[watch.service]
            watches.discard(watch)
            if not watches:
                del self._watches[watch.service]

    def _asked(self) -> bool:
        try:
            return self._live()
        except Exception:
            _log.exception("asking whether the process works failed")
            return False


@dataclass(slots=True, eq=False)
class _Watch:
    """One call of ``Watch``, which is told what the status is when it can be sent: not each of
    several that follow one another."""

    service: str
    send: Callable[[Any], object]
    cancel: Callable[[], object]
    telling: bool
    """Whether a thread tells it, or is about to. Under the servicer's lock."""
    told: int | None = None
    """The status that the client was told last; of the thread that tells it."""
