"""A gRPC server: starting, draining, stopping."""

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
from lipwire.rpc.calls import (
    INFERENCE_KIND,
    LEASE_KIND,
    LIVE_FRAMES_KIND,
    LIVE_KIND,
    LOADING_KIND,
    ErrorInterceptor,
    Finished,
    not_measured,
)
from lipwire.rpc.generated import compositing_pb2_grpc, inference_pb2_grpc
from lipwire.rpc.generated.lipwire.v1 import avatar_pb2_grpc, mouths_pb2_grpc, renders_pb2_grpc
from lipwire.rpc.server.admission import Admission, WaitingCalls, WaitingCallsInterceptor
from lipwire.rpc.server.health import HealthServicer
from lipwire.rpc.services.avatars import AvatarsServicer
from lipwire.rpc.services.conversing import ConversingServicer
from lipwire.rpc.services.inference import InferenceServicer, MouthServicer
from lipwire.rpc.services.renders import RendersServicer
from lipwire.rpc.transport import server_options
from lipwire.rpc.workers.place import address_of
from lipwire.security import OPEN, Control

_log: Final = logging.getLogger("lipwire.rpc")

_PACKAGES: Final = ("compositing", "inference", "lipwire.v1")
_QUICK_THREADS: Final = 8
"""For health checks and lists, when every other thread waits for a network."""
_LEASES: Final = 16
"""Leases that are asked for at a time; the first of an avatar waits until its network is loaded."""
_WAITING_CALLS: Final = 64
"""Threads for calls whose message has not come."""
_UNCOUNTED: Final = 64
"""Calls beyond those threads that gRPC holds before it refuses by itself."""
_HEALTH_EVERY_S: Final = 1.0
_STOP_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service: its full name, and ``add(server)``, which adds it to a server before that
    starts."""

    name: str
    add: Callable[[grpc.Server], None]


def compositing_service(servicer: AvatarsServicer) -> Service:
    """Return the gRPC service CompositingService (frames and management of avatars), answered by
    ``servicer``."""
    return Service(
        "compositing.CompositingService",
        lambda server: compositing_pb2_grpc.add_CompositingServiceServicer_to_server(
            servicer, server
        ),
    )


def inference_service(servicer: InferenceServicer) -> Service:
    """Return the gRPC service InferenceService (the networks' own output as float32, and management
    of networks), answered by ``servicer``."""
    return Service(
        "inference.InferenceService",
        lambda server: inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server),
    )


def mouth_service(servicer: MouthServicer) -> Service:
    """Return the gRPC service MouthService (mouths as pixels, and leases, which reserve a device's
    time for live sessions), answered by ``servicer``."""
    return Service(
        "lipwire.v1.MouthService",
        lambda server: mouths_pb2_grpc.add_MouthServiceServicer_to_server(servicer, server),
    )


def avatar_service(servicer: ConversingServicer) -> Service:
    """Return the gRPC service AvatarService (live sessions), answered by ``servicer``."""
    return Service(
        "lipwire.v1.AvatarService",
        lambda server: avatar_pb2_grpc.add_AvatarServiceServicer_to_server(servicer, server),
    )


def render_service(servicer: RendersServicer) -> Service:
    """Return the gRPC service RenderService (finished videos), answered by ``servicer``."""
    return Service(
        "lipwire.v1.RenderService",
        lambda server: renders_pb2_grpc.add_RenderServiceServicer_to_server(servicer, server),
    )


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a gRPC server listens, and how much it takes on.

    It listens on ``port`` of ``host`` (0: any free one), which other processes may share with
    ``share_port``, or on the Unix socket ``socket`` instead. At a time there may be
    ``max_requests`` batches (and as many more for live sessions), ``max_loads`` loads of avatars
    and ``max_streams`` streams of live sessions, in messages of ``max_message_bytes`` each and
    ``max_request_bytes`` together; what is more is refused as RESOURCE_EXHAUSTED. ``credentials``
    encrypt (None: plain text), ``control`` says who asks, ``finished`` is told of each call that
    has ended, and an idle connection is asked for a sign of life every ``keepalive_s`` seconds.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """The port to listen on; 0 for any free one."""
    max_message_bytes: int = 100 * 1024 * 1024
    """The most bytes of one message, sent or received; larger ones are RESOURCE_EXHAUSTED."""
    max_request_bytes: int = 1000 * 1024 * 1024
    """The most bytes of all messages in hand together."""
    max_requests: int = 64
    """Inferences in hand at a time, waiting ones included: one thread each. Of those for live
    sessions there may be as many more."""
    max_loads: int = 8
    """LoadModel calls in hand at a time."""
    max_streams: int = 1
    """Streams of live sessions at a time: one thread each."""
    socket: Path | None = None
    """A Unix socket to listen on, in place of host and port."""
    own_socket: Path | None = None
    """A Unix socket to listen on as well, on which this process asks itself how it is. It lies in a
    folder that only this user can reach."""
    share_port: bool = False
    """Let other processes listen on the same port (SO_REUSEPORT)."""
    credentials: grpc.ServerCredentials | None = None
    """TLS; None speaks plain text."""
    control: Control = OPEN
    """Says who asks."""
    finished: Finished = not_measured
    """Told of each call that has ended."""
    keepalive_s: float = 60.0
    """A connection on which nothing happens is asked for a sign of life this often."""


class RpcServer:
    """A gRPC server with health checking v1 and reflection. A context manager: started inside,
    stopped after.

        with RpcServer([compositing_service(servicer)], ServerOptions(port=50052)) as server:
            stop.wait()
            server.drain(30.0)

    Leaving without ``drain`` cuts off what is in hand. It answers in threads of its own; one that
    has stopped cannot be started again. Properties may be read in any thread.
    """

    def __init__(
        self,
        services: Sequence[Service],
        options: ServerOptions,
        *,
        healthy: Callable[[], bool] | None = None,
        live: Callable[[], bool] = lambda: True,
        on_drain: Callable[[float], object] | None = None,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
    ) -> None:
        """``services`` are served as ``options`` say. ``healthy()`` is called every second, and
        gRPC health checking says what it returned last; None: always healthy. ``live()`` says
        whether the process works, and is called for each check of the service named "liveness".
        ``on_drain`` is called with the seconds that are left when the server is drained, and must
        not wait. ``interceptors`` run inside ``ErrorInterceptor``, which makes statuses of their
        errors."""
        self._options = options
        self._services = tuple(services)
        self._healthy = healthy
        self._on_drain = on_drain
        self._admission = Admission(
            {
                INFERENCE_KIND: options.max_requests,
                LOADING_KIND: options.max_loads,
                LIVE_KIND: options.max_streams,
                LIVE_FRAMES_KIND: options.max_requests,
                LEASE_KIND: _LEASES,
            },
            max_bytes=options.max_request_bytes,
        )
        self._health = HealthServicer(live)
        threads = 2 * options.max_requests + options.max_loads + options.max_streams
        threads += _LEASES + _QUICK_THREADS
        # So that as many as are worked on may send their messages at the same time.
        waiting = 2 * options.max_requests + _WAITING_CALLS
        threads += waiting
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="lipwire-rpc")
        self._server = grpc.server(
            self._threads,
            interceptors=[
                WaitingCallsInterceptor(WaitingCalls(waiting), lasting=("/lipwire.v1.",)),
                ErrorInterceptor(self._admission, _PACKAGES, options.control, options.finished),
                *interceptors,
            ],
            options=server_options(
                max_message_bytes=options.max_message_bytes,
                share_port=options.share_port,
                keepalive_s=options.keepalive_s,
            ),
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
        self._healthy_now = True
        self._withdrawn = False
        self._port = 0

    @property
    def port(self) -> int:
        """The TCP port that it listens on; 0 before it is started. Without meaning where it listens
        on a Unix socket instead."""
        return self._port

    @property
    def in_hand(self) -> int:
        """How many calls that are limited in number are being worked on now: inferences, loads of
        avatars, streams of live sessions, and leases."""
        return self._admission.in_hand

    @property
    def ready(self) -> bool:
        """Whether the server answers and health checks say SERVING: it is started, is not
        withdrawn, drained or stopped, and was healthy when ``healthy`` was last called."""
        ending = self._withdrawn or self._stopping.is_set()
        return self._healthy_now and self._port != 0 and not ending

    def start(self) -> None:
        """Listen and answer, in threads of its own; returns once it listens. Called by the ``with``
        statement. Raises Unavailable where the address is taken or none of this machine,
        InvalidInput where the port is not 0 to 65535."""
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
        if options.own_socket is not None:
            self._server.add_insecure_port(address_of(options.own_socket))
        self._say(True)
        self._server.start()
        if self._healthy is not None:
            self._watcher = threading.Thread(target=self._watch, daemon=True, name="lipwire-health")
            self._watcher.start()

    def withdraw(self) -> None:
        """Have health checks say NOT_SERVING from now on, and answer all calls as before: balancers
        that look give new work to others, until ``drain`` refuses what still comes. Returns at
        once; it cannot be taken back."""
        self._withdrawn = True
        self._health.drain()

    def drain(self, timeout_s: float) -> bool:
        """Stop with care: health checks say NOT_SERVING and new work is refused with UNAVAILABLE
        from now on, requests in hand may finish for ``timeout_s`` seconds, then the server stops.
        Waits for all that. Returns False where some had not finished and were cut off."""
        until = time.monotonic() + timeout_s
        self._stopping.set()
        self._health.drain()
        if self._on_drain is not None:
            self._on_drain(timeout_s)
        done = self._admission.drain(timeout_s)
        # Answers are on their way out while their places are free already: a moment for those.
        self._server.stop(max(_STOP_S, until - time.monotonic()) if done else 0.0).wait()
        self._threads.shutdown(wait=done)
        return done

    def stop(self) -> None:
        """Cut off the requests in hand, stop, and wait until it has stopped. Called at the end of
        the ``with`` block. Stopping twice, or after ``drain``, is allowed."""
        self._stopping.set()
        self._health.drain()
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
        while not self._stopping.wait(_HEALTH_EVERY_S):
            try:
                now = self._healthy is None or self._healthy()
            except Exception:
                _log.exception("asking for the server's health failed")
                now = False
            if now != self._healthy_now:
                self._say(now)
                _log.warning("the server is %s", "healthy again" if now else "not healthy")
                self._healthy_now = now
