"""A connection to one inference server: its channel, its calls under way, its health checks."""

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lipwire.domain import InvalidInput
from lipwire.rpc.backends.fleet import Verdict
from lipwire.rpc.backends.statuses import reason_of_call
from lipwire.rpc.calls import Call
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub

MAX_MESSAGE_BYTES: Final = 2**31 - 1
"""What gRPC's length fields hold."""

_CONNECTION: Final = (
    # A peer that is gone without a word is noticed in 18 seconds, and in 3 where it has not even
    # taken in the request (the timeout is TCP's as well); gRPC's defaults are hours. Servers cut
    # off who asks more often than they like, which for Lipwire's is every 10 seconds.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is noticed in a second, not in up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # The name misleads: it is also how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 2_000),
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
    """A call under way: what the stubs' ``future`` gives."""

    def result(self, timeout: float | None = None) -> Answer: ...

    def cancel(self) -> bool: ...

    def add_done_callback(self, fn: Callable[[Any], None]) -> None: ...


class Connection:
    """One server's. Methods may be called from any thread."""

    def __init__(
        self,
        address: str,
        *,
        max_message_bytes: int,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        """Does not connect yet. What is passed has been checked: see ``check_address``."""
        options = (
            *_CONNECTION,
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
        )
        self.address: Final = address
        self._channel = (
            grpc.insecure_channel(address, options=options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options=options)
        )
        self.mouths: Final = self._plain("/lipwire.v1.MouthService/Mouths")
        """Takes and gives serialised messages; so does ``infer_batch``."""
        self.infer_batch: Final = self._plain("/inference.InferenceService/InferBatch")
        self.inference: Final = InferenceServiceStub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._pending: set[Pending[object]] = set()
        self._lock = threading.Lock()
        self._checking = False

    def _plain(self, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(method)
        return call

    def keep(self, pending: Pending[object]) -> None:
        """Have ``cancel_all`` reach the call, until it is ``done``."""
        with self._lock:
            self._pending.add(pending)

    def done(self, pending: Pending[object]) -> None:
        """Forget a call that is over."""
        with self._lock:
            self._pending.discard(pending)

    def cancel_all(self) -> None:
        """Cancel the calls under way; they raise ``grpc.FutureCancelledError``."""
        with self._lock:
            pending = list(self._pending)
        for call in pending:
            call.cancel()

    def check(self, timeout_s: float, tell: Callable[[Verdict, str], None]) -> None:
        """Ask the server how it is; ``tell`` hears it, on a thread of gRPC's.

        Nothing is asked while an earlier check is under way.
        """
        with self._lock:
            if self._checking:
                return
            self._checking = True

        def finished(call: Any) -> None:
            with self._lock:
                self._checking = False
            if not call.cancelled():  # else this side is closing
                tell(*_verdict(call))

        request = health_pb2.HealthCheckRequest()
        try:
            call: Any = self._health.Check.future(request, timeout=timeout_s)
        except ValueError:
            return  # the channel is closed
        call.add_done_callback(finished)

    def close(self) -> None:
        """Close the channel; calls under way fail. Closing twice is fine."""
        self._channel.close()


class Caller:
    """Who waits for a call: when they go, the try under way is cancelled. For one call."""

    __slots__ = ("_lock", "_pending", "_stir", "gone")

    def __init__(self, call: Call | None, stir: Callable[[], None]) -> None:
        """``call`` is what the thread works for; ``stir`` is called when it ends."""
        self.gone = False
        self._lock = threading.Lock()
        self._pending: Pending[object] | None = None
        self._stir = stir
        if call is not None:
            call.on_end(self._leave)

    def hold(self, pending: Pending[object] | None) -> None:
        """``pending`` is the try under way; None when there is none any more."""
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
        self._stir()


def check_address(address: str) -> None:
    """Refuse what cannot be the address of a gRPC server."""
    host, colon, port = address.rpartition(":")
    number = port.isascii() and port.isdigit() and 0 < int(port) < 65536
    if address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")) and colon:
        return
    if "/" in address or not host or not number or address != address.strip():
        raise InvalidInput(
            f"inference server address is {address!r}, wanted is HOST:PORT without a scheme"
        )


def _verdict(call: Any) -> tuple[Verdict, str]:
    code = call.code()
    if code is grpc.StatusCode.OK:
        if call.result().status == health_pb2.HealthCheckResponse.SERVING:
            return "serving", ""
        return "refused", "says that it is not serving"
    if code in _THERE:
        return "serving", ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "silent", "does not answer health checks"
    return "refused", reason_of_call(call)
