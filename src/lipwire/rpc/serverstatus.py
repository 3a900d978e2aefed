"""What a running server tells of itself, whichever of the two servers it is: health, avatars in
memory, live sessions, GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc

from lipwire.domain.closing import Closing
from lipwire.rpc.backends.statuses import error_of_call
from lipwire.rpc.credentials import PLAIN, ClientSecurity
from lipwire.rpc.generated import management_pb2
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.rpc.reachability import Kind, Peer, check_address
from lipwire.rpc.transport import connecting_within, open_channel

_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Numbers about ten thousands of avatars."""
_CONNECTED_WITHIN_S: Final = 5.0
_STUBS: Final[dict[Kind, Any]] = {
    "compositing server": CompositingServiceStub,
    "inference server": InferenceServiceStub,
}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class ModelUse:
    """An avatar in a server's memory: its ``name``, ``memory_bytes``, how often it was used since
    it was loaded (``uses``), in how many requests it is used now (``in_use``), seconds since the
    last use (``idle_s``; 0 while in use), and how many of the server's processes hold it
    (``loaded_in``)."""

    name: str
    memory_bytes: int
    uses: int
    in_use: int
    idle_s: float
    loaded_in: int


@dataclass(frozen=True, slots=True)
class GpuUse:
    """A GPU of a server: ``name`` and number (``index``), networks loaded, bytes of its memory in
    all (``memory_bytes``) and used (``used_bytes``), the share of time at work (``utilisation``, 0
    to 1), and why it is out (``lost``; empty where it is not)."""

    name: str
    index: int
    loaded_models: int
    memory_bytes: int
    used_bytes: int
    utilisation: float
    lost: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A running server at one moment. Numbers are sums over its processes (``workers``).

    ``known`` is how many avatars may be asked for, ``loaded`` how many are in memory, with
    ``memory_bytes``, and ``max_models`` how many may be (0: without limit). ``detail`` says why it
    is not ``healthy``. ``live_sessions`` run, and ``live_capacity`` is how many it can carry, 0
    before any avatar's speed was measured. ``hits``, ``misses``, ``evictions`` and ``failures``
    count how often a compositing server's avatars were in memory when they were asked for, were
    not, were unloaded to make room, and could not be loaded; None for an inference server.
    """

    address: str
    kind: Kind
    version: str
    healthy: bool
    detail: str
    workers: int
    known: int
    loaded: int
    max_models: int
    memory_bytes: int
    live_sessions: int
    live_capacity: int
    models: tuple[ModelUse, ...]
    gpus: tuple[GpuUse, ...]
    hits: int | None = None
    misses: int | None = None
    evictions: int | None = None
    failures: int | None = None


class StatusConnection(Closing):
    """A connection to the server at ``address`` (host:port), a compositing server or an inference
    server, that asks for its status. A context manager, for one thread at a time. Which kind of
    server it is it finds out itself."""

    def __init__(
        self,
        address: str,
        *,
        kind: Kind = "compositing server",
        use_proxy: bool = False,
        security: ClientSecurity = PLAIN,
    ) -> None:
        """Does not connect yet. ``kind`` is the kind of server that is expected there; errors name
        it so. ``use_proxy`` says whether the environment's proxy variables count, and ``security``
        how the connection is encrypted and what token is sent. Raises InvalidInput where
        ``address`` cannot be one, a file of ``security`` cannot be read, or its token would go to
        another machine without encryption."""
        self.address: Final = address
        self._use_proxy = use_proxy
        self._kind = kind
        check_address(address, self._kind)
        self._channel = open_channel(
            address,
            max_message_bytes=_MAX_MESSAGE_BYTES,
            use_proxy=use_proxy,
            security=security,
            options=[connecting_within(_CONNECTED_WITHIN_S)],
        )

    def status(self, timeout_s: float) -> ServerStatus:
        """Ask the server, and return its status. Each of the calls for it, three or four, waits at
        most ``timeout_s`` seconds. Raises the error that the server sent, Unavailable with the
        cause where it cannot be reached, and DeadlineExceeded where it does not answer in time."""
        health = self._health(timeout_s)
        stub: Any = _STUBS[self._kind](self._channel)
        stats: Any = self._called(
            lambda: stub.GetModelStats(management_pb2.GetModelStatsRequest(), timeout=timeout_s)
        )
        one = management_pb2.ListModelsRequest(page_size=1)
        listing: Any = self._called(lambda: stub.ListModels(one, timeout=timeout_s))
        counted = self._kind == "compositing server"
        return ServerStatus(
            address=self.address,
            kind=self._kind,
            version=health.version,
            healthy=health.healthy,
            detail=health.detail or stats.detail,
            workers=health.workers,
            known=listing.total,
            loaded=health.loaded_models,
            max_models=health.max_models,
            memory_bytes=stats.memory_bytes,
            live_sessions=health.live_sessions,
            live_capacity=health.live_capacity,
            models=tuple(
                ModelUse(
                    each.model_id,
                    each.memory_bytes,
                    each.uses,
                    each.in_use,
                    each.idle_s,
                    each.loaded_in,
                )
                for each in stats.models
            ),
            gpus=tuple(
                GpuUse(
                    each.name,
                    each.index,
                    each.loaded_models,
                    each.memory_bytes,
                    each.used_bytes,
                    each.utilisation,
                    each.lost,
                )
                for each in health.gpus
            ),
            hits=stats.hits if counted else None,
            misses=stats.misses if counted else None,
            evictions=stats.evictions if counted else None,
            failures=stats.failures if counted else None,
        )

    def _health(self, timeout_s: float) -> Any:
        """The server's health, of whichever kind it is, which is then known. Raises as
        ``status``."""
        request = management_pb2.HealthRequest()
        try:
            return _STUBS[self._kind](self._channel).Health(request, timeout=timeout_s)
        except grpc.RpcError as failure:
            if failure.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise self._error(failure) from None
        self._kind = (
            "inference server" if self._kind == "compositing server" else "compositing server"
        )
        stub = _STUBS[self._kind](self._channel)
        return self._called(lambda: stub.Health(request, timeout=timeout_s))

    def _called(self, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        except grpc.RpcError as failure:
            raise self._error(failure) from None

    def _error(self, failure: grpc.RpcError) -> Exception:
        return error_of_call(failure, Peer(self.address, self._kind, self._use_proxy))

    def close(self) -> None:
        """Close the connection; calls under way fail."""
        self._channel.close()
