"""A connection to one inference server: its channel, its calls under way, its health checks."""

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lipwire.domain import Call
from lipwire.rpc.backends.fleet import Verdict
from lipwire.rpc.backends.statuses import reason_of_call
from lipwire.rpc.credentials import ClientSecurity
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.generated.lipwire.v1.mouths_pb2_grpc import MouthServiceStub
from lipwire.rpc.reachability import Peer
from lipwire.rpc.transport import connecting_within, open_channel

MAX_MESSAGE_BYTES: Final = 2**31 - 1
"""The largest message that gRPC's length fields allow."""

_CONNECTION: Final = (
    # A peer that is gone without a word is noticed in 18 seconds, and in 3 where it has not even
    # taken in the request (the timeout is TCP's as well); gRPC's defaults are hours. Servers cut
    # off who asks more often than they like, which for Lipwire's is every second.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    connecting_within(2.0),
    # Retries are ours: gRPC's own would hide from us which server failed.
    ("grpc.enable_retries", 0),
    # Two backends in one process must not share what the other closes.
    ("grpc.use_local_subchannel_pool", 1),
)

_THERE: Final = (
    grpc.StatusCode.UNIMPLEMENTED,  # it has no health service, and is there to say so
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,  # full, not gone
)

Answer = TypeVar("Answer", covariant=True)


class Pending(Protocol[Answer]):
    """A call under way, as the ``future`` method of gRPC's stubs returns it."""

    def result(self, timeout: float | None = None) -> Answer:
        """Wait for the answer, at most ``timeout`` seconds (None: without limit), and return it.
        Raises grpc.RpcError where the call failed, grpc.FutureCancelledError where it was
        cancelled, and grpc.FutureTimeoutError where ``timeout`` was too short."""

    def cancel(self) -> bool:
        """Cancel the call, so that ``result`` raises grpc.FutureCancelledError. Returns False where
        it is over already, and nothing changes."""

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Have ``fn`` called with this call once it is over, in a thread of gRPC's; at once, in
        this thread, where it is over already."""


class Connection:
    """A gRPC channel to one inference server, with the calls under way on it. Methods may be called
    from any thread. It does not know by itself which calls are under way: whoever makes one calls
    ``keep``, and ``done`` when it is over."""

    def __init__(
        self,
        address: str,
        *,
        max_message_bytes: int,
        use_proxy: bool,
        security: ClientSecurity,
    ) -> None:
        """``address`` is HOST:PORT. A message has at most ``max_message_bytes``; ``use_proxy`` says
        whether the environment's proxy variables count, and ``security`` how the connection is
        encrypted and what token is sent (see ``open_channel``). All have been checked
        (``check_address``). Does not connect yet."""
        self.address: Final = address
        self.peer: Final = Peer(address, "inference server", use_proxy)
        self._channel = open_channel(
            address,
            max_message_bytes=max_message_bytes,
            use_proxy=use_proxy,
            security=security,
            options=_CONNECTION,
        )
        self.mouths: Final = self._plain("/lipwire.v1.MouthService/Mouths")
        """Takes and gives serialised messages; so does ``infer_batch``."""
        self.infer_batch: Final = self._plain("/inference.InferenceService/InferBatch")
        self.inference: Final = InferenceServiceStub(self._channel)
        self.leases: Any = MouthServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._pending: set[Pending[object]] = set()
        self._lock = threading.Lock()
        self._checking = False

    def _plain(self, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        return call

    def keep(self, pending: Pending[object]) -> None:
        """Remember ``pending``, a call that was made over this connection, so that ``cancel_all``
        cancels it. Call ``done`` with it when it is over."""
        with self._lock:
            self._pending.add(pending)

    def done(self, pending: Pending[object]) -> None:
        """Forget ``pending``, a call that is over; does nothing where it is not remembered."""
        with self._lock:
            self._pending.discard(pending)

    def cancel_all(self) -> None:
        """Cancel the calls that ``keep`` was called with and ``done`` not yet; whoever waits for
        one gets ``grpc.FutureCancelledError``. Later calls can be made."""
        with self._lock:
            pending = list(self._pending)
        for call in pending:
            call.cancel()

    def check(self, timeout_s: float, tell: Callable[[Verdict, str], None]) -> None:
        """Send the server a health check, with ``timeout_s`` seconds to answer, and return at once.

        ``tell(verdict, reason)`` is called later, in a thread of gRPC's: the verdict is "serving",
        "refused" or "silent" (no answer in time), the reason one line, empty for "serving". Nothing
        is sent, and ``tell`` is not called, while an earlier check is under way and once this is
        closed.
        """
        with self._lock:
            if self._checking:
                return
            self._checking = True

        def finished(call: Any) -> None:
            with self._lock:
                self._checking = False
            if not call.cancelled():  # else this side is closing
                tell(*_verdict(call, self.peer))

        request = health_pb2.HealthCheckRequest()
        try:
            call: Any = self._health.Check.future(request, timeout=timeout_s)
        except ValueError:
            return  # the channel is closed
        call.add_done_callback(finished)

    def close(self) -> None:
        """Close the channel; calls under way fail. Closing twice is allowed."""
        self._channel.close()


class Caller:
    """Cancels what inference servers are asked on behalf of a request, when that request ends: the
    call to a server that is under way (``hold``) is cancelled, and ``gone`` is true from then on.
    For one thread, which calls one server after the other; the request may end in any thread."""

    __slots__ = ("_lock", "_on_end", "_pending", "gone")

    def __init__(self, call: Call | None, on_end: Callable[[], None]) -> None:
        """``call`` is the request; None where there is none: then nothing is ever cancelled.
        ``on_end()`` is called when it ends, in any thread."""
        self.gone = False
        self._lock = threading.Lock()
        self._pending: Pending[object] | None = None
        self._on_end = on_end
        if call is not None:
            call.on_end(self._leave)

    def hold(self, pending: Pending[object] | None) -> None:
        """Set ``pending``, the call to a server that is under way, which is cancelled when the
        request ends; None where none is. ``pending`` takes the place of the call set before, which
        is not cancelled. Where the request has ended already, ``pending`` is cancelled at once."""
        with self._lock:
            self._pending = pending
            gone = self.gone
        if gone and pending is not None:
            pending.cancel()

    def _leave(self) -> None:
        with self._lock:
            self.gone, pending = True, self._pending
        if pending is not None:
            pending.cancel()
        self._on_end()


def _verdict(call: Any, peer: Peer) -> tuple[Verdict, str]:
    code = call.code()
    if code is grpc.StatusCode.OK:
        if call.result().status == health_pb2.HealthCheckResponse.SERVING:
            return "serving", ""
        return "refused", "says that it is not serving"
    if code in _THERE:
        return "serving", ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "silent", "does not answer health checks"
    return "refused", reason_of_call(call, peer)
