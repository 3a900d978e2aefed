"""A running gRPC server: started, drained, stopped."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lipwire.domain import InvalidInput, Unavailable
from lipwire.rpc.admission import Admission
from lipwire.rpc.avatars import AvatarsServicer
from lipwire.rpc.generated import compositing_pb2_grpc, inference_pb2_grpc
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2_grpc
from lipwire.rpc.inference import InferenceServicer, MouthServicer
from lipwire.rpc.interceptors import INFERENCE_KIND, LOADING_KIND, ErrorInterceptor
from lipwire.rpc.workers.place import address_of

_log: Final = logging.getLogger("lipwire.rpc")

_PACKAGES: Final = ("compositing", "inference", "lipwire.v1")
_QUICK_THREADS: Final = 8
"""For health checks and lists, when every other thread waits for a network."""
_UNCOUNTED: Final = 64
"""Calls beyond those threads that gRPC holds before it refuses by itself."""
_HEALTH_EVERY_S: Final = 1.0
_STOP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service: its full name, and what adds it to a server."""

    name: str
    add: Callable[[grpc.Server], None]


def compositing_service(servicer: AvatarsServicer) -> Service:
    return Service(
        "compositing.CompositingService",
        lambda server: compositing_pb2_grpc.add_CompositingServiceServicer_to_server(
            servicer, server
        ),
    )


def inference_service(servicer: InferenceServicer) -> Service:
    return Service(
        "inference.InferenceService",
        lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server),
    )


def mouth_service(servicer: MouthServicer) -> Service:
    return Service(
        "lipwire.v1.MouthService",
        lambda server: mouths_pb2_grpc.add_MouthServiceServicer_to_server(servicer, server),
    )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server listens and how much it takes on."""

    host: str = "0.0.0.0"
    port: int = 0
    """0: any free one."""
    max_message_bytes: int = 100 * 1024 * 1024
    """Of one message, either way; larger ones are RESOURCE_EXHAUSTED."""
    max_request_bytes: int = 1000 * 1024 * 1024
    """Of all messages in hand together."""
    max_requests: int = 64
    """Inferences in hand at a time, waiting ones included: one thread each."""
    max_loads: int = 8
    """LoadModel calls in hand at a time."""
    socket: Path | None = None
    """A Unix socket to listen on, in place of host and port."""
    share_port: bool = False
    """Let other processes listen on the same port (SO_REUSEPORT)."""
    credentials: grpc.ServerCredentials | None = None
    """TLS; None speaks plain text."""
    keepalive_s: float = 60.0
    """A connection on which nothing happens is asked for a sign of life this often."""


class RpcServer:
    """A gRPC server with health checking v1 and reflection. A context manager: started inside,
    stopped after.

        with RpcServer([compositing_service(servicer)], ServerOptions(port=50052)) as server:
            stop.wait()
            server.drain(30.0)

    Leaving without ``drain`` cuts off what is in hand.
    """

    def __init__(
        self,
        services: Sequence[Service],
        options: ServerOptions,
        *,
        healthy: Callable[[], bool] | None = None,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
    ) -> None:
        """``healthy`` is asked every second for what health checking v1 says; None: always.

        ``interceptors`` stand between the services and what makes statuses of their errors.
        """
        self._options = options
        self._services = tuple(services)
        self._healthy = healthy
        self._admission = Admission(
            {INFERENCE_KIND: options.max_requests, LOADING_KIND: options.max_loads},
            max_bytes=options.max_request_bytes,
        )
        self._health = health.HealthServicer()
        threads = options.max_requests + options.max_loads + _QUICK_THREADS
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lipwire-rpc")
        self._server = grpc.server(
            self._threads,
            interceptors=[ErrorInterceptor(self._admission, _PACKAGES), *interceptors],
            options=_channel_options(options),
            maximum_concurrent_rpcs=threads + _UNCOUNTED,
        )
        for service in self._services:
            service.add(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.name for service in self._services]
        reflection.enable_server_reflection(
            (*names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port it listens on; 0 before it is started, and no port where it is a socket."""
        return self._port

    @property
    def in_hand(self) -> int:
        """Inferences and loads that are being worked on."""
        return self._admission.in_hand

    def start(self) -> None:
        """Listen and answer. Raises Unavailable where the address is taken, InvalidInput where it
        is no address of this machine."""
        options = self._options
        if not 0 <= options.port <= 65535:
            raise InvalidInput(f"port is {options.port}; allowed are 0 to 65535")
        host = options.host.strip("[]")
        address = f"[{host}]:{options.port}" if ":" in host else f"{host}:{options.port}"
        if options.socket is not None:
            address = address_of(options.socket)
        try:
            if options.credentials is None:
                self._port = self._server.add_insecure_port(address)
            else:
                self._port = self._server.add_secure_port(address, options.credentials)
        except RuntimeError:
            self._port = 0
        if not self._port:
            self._threads.shutdown(wait=False)
            raise Unavailable(
                f"cannot listen on {address}: another program does, or this machine does not have"
                " that address"
            )
        self._say(True)
        self._server.start()
        if self._healthy is not None:
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="lipwire-health")
            self._watcher.start()

    def drain(self, timeout_s: float) -> bool:
        """Say NOT_SERVING, refuse new work with UNAVAILABLE, wait for what is in hand, stop.

        False where that took longer than ``timeout_s`` and the rest was cut off.
        """
        until = time.monotonic() + timeout_s
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        done = self._admission.drain(timeout_s)
        # Answers are on their way out while their places are free already: a moment for those.
        self._server.stop(max(_STOP_S, until - time.monotonic()) if done else 0.0).wait()
        self._threads.shutdown(wait=done)
        return done

    def stop(self) -> None:
        """Cut off what is in hand. Stopping twice, or after ``drain``, is fine."""
        self._stopping.set()
        self._health.enter_graceful_shutdown()
        self._admission.drain(0.0)
        self._server.stop(0.0).wait()
        self._threads.shutdown(wait=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _say(self, serving: bool) -> None:
        kinds = health_pb2.HealthCheckResponse
        status = kinds.SERVING if serving else kinds.NOT_SERVING
        for name in ("", *(service.name for service in self._services)):
            self._health.set(name, status)

    def _watch(self) -> None:
        said = True
        while not self._stopping.wait(_HEALTH_EVERY_S):
            try:
                now = self._healthy is None or self._healthy()
            except Exception:
                _log.exception("asking for the server's health failed")
                now = False
            if now != said:
                self._say(now)
                _log.warning("the server is %s", "healthy again" if now else "not healthy")
                said = now


def _channel_options(options: ServerOptions) -> list[tuple[str, int]]:
    """See https://grpc.github.io/grpc/core/group__grpc__arg__keys.html."""
    return [
        ("grpc.max_receive_message_length", options.max_message_bytes),
        ("grpc.max_send_message_length", options.max_message_bytes),
        ("grpc.so_reuseport", int(options.share_port)),
        ("grpc.keepalive_time_ms", round(options.keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ask for a sign of life themselves, every 10 s at most.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
