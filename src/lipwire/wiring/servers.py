"""The servers, built from their configurations: each is a context manager that gives a listening
server.

The caller drains the server before the block ends. What the inference server and the compositing
server do in two processes ``open_serve`` does in one, without a socket in between.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lipwire.avatars.packages import Packages
from lipwire.config import CompositingConfig, InferenceConfig, ModelEntry, usable_cores
from lipwire.domain import Call, Tell
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Registry
from lipwire.rpc.server.server import (
    RpcServer,
    ServerOptions,
    Service,
    avatar_service,
    compositing_service,
    inference_service,
    mouth_service,
    render_service,
)
from lipwire.rpc.services.avatars import AvatarsServicer
from lipwire.rpc.services.compositing import CompositingServicer, LoggingCompositingServicer
from lipwire.rpc.services.conversing import ConversingServicer
from lipwire.rpc.services.inference import (
    InferenceServicer,
    LoggingInferenceServicer,
    LoggingMouthServicer,
    MouthServicer,
)
from lipwire.rpc.services.renders import RendersServicer
from lipwire.rpc.workers import WorkerPlace
from lipwire.serving import (
    AudioEncoders,
    Backend,
    Compositor,
    FrameCost,
    LoadedAvatar,
    LocalBackend,
)
from lipwire.serving.leases import SHARE
from lipwire.session.live import Leases
from lipwire.wiring.backends import connect_backend, open_devices
from lipwire.wiring.choosing import MakeEngine, make_engine
from lipwire.wiring.erasing import erasing
from lipwire.wiring.facts import HEALTH_TIMEOUT_S, frames_fact, health_facts, registry_facts
from lipwire.wiring.listening import listening, telling_why_not
from lipwire.wiring.live import open_live_sessions
from lipwire.wiring.measuring import (
    measure_audit,
    measure_backend,
    measure_sessions,
    measured_calls,
    recent_health,
)
from lipwire.wiring.packages import open_packages
from lipwire.wiring.registries import (
    has_web,
    open_avatars,
    open_frames,
    open_networks,
    preload,
)
from lipwire.wiring.renders import OpenedRenders, open_renders
from lipwire.wiring.security import (
    open_access_control,
    server_tls,
    transport_options,
)
from lipwire.wiring.sharing import hearing_of_versions, open_redis
from lipwire.wiring.speaking import open_speaking
from lipwire.wiring.versions import choosing
from lipwire.wiring.web import check_web, open_web

if TYPE_CHECKING:
    from lipwire.rpc.workers.sessioncount import SharedCount
    from lipwire.web.server import WebServer

_COMPOSITING_REQUESTS: Final = 64
_MORE_THAN_THERE_IS: Final = 1000.0
"""Of a device's time, to measure what happens then."""
_TO_BE_REFUSED: Final = 8
"""Requests in hand besides those that the schedulers take in, so that it is they who refuse: they
know when to come back, and whose turn it is. Likewise streams besides the live sessions that there
may be: one may come to resume a session whose broken connection was not noticed yet."""
_VOICE_WITHIN_S: Final = 10.0
"""So long a server waits for its voice, before it says that it is ready."""


@contextmanager
def open_inference_server(
    config: InferenceConfig,
    *,
    tell: Tell,
    place: WorkerPlace | None = None,
    own_socket: Path | None = None,
    make_engine: MakeEngine = make_engine,
    metrics: ServerMetrics | None = None,
) -> Iterator[RpcServer]:
    """Give the ``with`` block the inference server of ``config``, listening, and stop it
    afterwards; ``RpcServer.drain`` lets requests finish before that. A context manager.

    ``tell(heading, facts)`` is called, for people who start the server, with a heading and a
    mapping of names to values, for each part that is opened. ``place`` is that of this process
    among those that share the port; None where it is alone. ``own_socket`` is a Unix socket on
    which it listens as well, for this process alone. ``make_engine(chosen)`` opens the engine of a
    device (``ChosenDevice``). ``metrics`` counts what happens; None where nobody measures. Raises
    NotFound where there is no avatar, DependencyMissing where CUDA is required and not there,
    DeviceLost where a GPU that is needed does not work, InvalidInput where ``onnx.cuda_device_id``
    is not the number of a GPU or a file of the configuration is not usable, Unavailable where the
    port is taken.
    """
    metrics = metrics or ServerMetrics()
    with ExitStack() as stack:
        sandboxed = config.capacity.compile_sandbox
        catalog = stack.enter_context(
            open_packages(config, sandboxed=sandboxed, tell=tell, metrics=metrics)
        )
        control = stack.enter_context(open_access_control(config.security, config.server))
        opened = stack.enter_context(
            open_devices(config, tell=tell, metrics=metrics, make_engine=make_engine)
        )
        networks = stack.enter_context(open_networks(config, catalog, opened.devices, metrics))
        backend = stack.enter_context(LocalBackend(networks, opened.devices))
        measure_backend(metrics, recent_health(backend))
        measure_audit(metrics, control)
        wanted = [name for name, entry in config.models.items() if entry.preload]
        loaded = preload(wanted, backend.load)
        most = backend.health().max_models
        tell("Model registry", registry_facts(catalog, loaded, most))
        logging_times = config.logging.log_inference_times
        servicer = LoggingInferenceServicer if logging_times else InferenceServicer
        mouth_servicer = LoggingMouthServicer if logging_times else MouthServicer
        inference = inference_service(servicer(backend, names=catalog.names))
        options = ServerOptions(
            host=config.server.host,
            port=config.server.port,
            own_socket=own_socket,
            max_message_bytes=config.server.max_message_bytes,
            max_request_bytes=config.server.max_request_bytes,
            max_requests=opened.requests + _TO_BE_REFUSED,
            finished=measured_calls(metrics),
            **transport_options(control, config.server),
        )
        server = stack.enter_context(
            listening(
                [inference, mouth_service(mouth_servicer(backend))],
                options,
                healthy=telling_why_not(backend.health),
                live=opened.alive,
                place=place,
                parts=[inference],
            )
        )
        tell(f"Inference server listening on port {server.port}", {"Protocol": "gRPC, protobuf"})
        yield server


@contextmanager
def open_compositing_server(
    config: CompositingConfig,
    *,
    tell: Tell,
    place: WorkerPlace | None = None,
    metrics: ServerMetrics | None = None,
    own_socket: Path | None = None,
) -> Iterator[RpcServer]:
    """Give the ``with`` block the compositing server of ``config``, listening, and stop it
    afterwards; ``RpcServer.drain`` lets requests finish before that. A context manager. The
    inference servers need not be there yet.

    ``tell(heading, facts)`` is called, for people who start the server, with a heading and a
    mapping of names to values, for each part that is opened. ``place`` is that of this process
    among those that share the port; None where it is alone. ``own_socket`` is a Unix socket on
    which it listens as well, for this process alone. ``metrics`` counts what happens; None where
    nobody measures. Raises NotFound where there is no avatar, InvalidInput where an address or a
    file of the configuration is not usable, DependencyMissing where its voice is not installed,
    Unavailable where the port is taken.
    """
    urls = ", ".join(config.inference_server.url)
    metrics = metrics or ServerMetrics()
    with ExitStack() as stack:
        sandboxed = config.capacity.compile_sandbox
        catalog = stack.enter_context(
            open_packages(config, sandboxed=sandboxed, tell=tell, metrics=metrics)
        )
        backend = stack.enter_context(connect_backend(config))
        tell(f"Inference server {urls}", health_facts(backend))
        avatars = stack.enter_context(open_frames(config, catalog, backend, metrics))
        server = stack.enter_context(
            _compositing(
                config,
                catalog,
                avatars,
                backend,
                config.models,
                url=urls,
                leases=backend,
                max_requests=_COMPOSITING_REQUESTS,
                tell=tell,
                place=place,
                metrics=metrics,
                own_socket=own_socket,
            )
        )
        yield server


@contextmanager
def open_serve(
    config: CompositingConfig,
    inference: InferenceConfig,
    *,
    tell: Tell,
    place: WorkerPlace | None = None,
    own_socket: Path | None = None,
    make_engine: MakeEngine = make_engine,
    by_speed: bool = True,
    metrics: ServerMetrics | None = None,
) -> Iterator[RpcServer]:
    """Give the ``with`` block a server that is compositing and inference server in one process,
    listening, and stop it afterwards; ``RpcServer.drain`` lets requests finish before that. A
    context manager.

    It listens where ``config`` says, and serves its avatars. ``inference`` says how networks are
    run, where files lie that ``config`` does not name, and what is preloaded; the address in
    ``inference`` is not used. ``tell(heading, facts)`` is called, for people who start the server,
    with a heading and a mapping of names to values, for each part that is opened. ``place`` is that
    of this process among those that share the port; None where it is alone. ``own_socket`` is a
    Unix socket on which it listens as well, for this process alone; None for no such socket.
    ``make_engine(chosen)`` opens the engine of a device. Where ``by_speed`` is False, live sessions
    are admitted even if the networks are too slow for them, to measure what happens then.
    ``metrics`` counts what happens; None where nobody measures.

    Raises NotFound where there is no avatar, DependencyMissing where CUDA is required and not there
    or the voice not installed, DeviceLost where a GPU that is needed does not work, InvalidInput
    where an address, a file or a GPU's number of a configuration is not usable, Unavailable where a
    port is taken.
    """
    metrics = metrics or ServerMetrics()
    sandboxed = config.capacity.compile_sandbox or inference.capacity.compile_sandbox
    with ExitStack() as stack:
        catalog = stack.enter_context(
            open_packages(config, also=inference, sandboxed=sandboxed, tell=tell, metrics=metrics)
        )
        opened = stack.enter_context(
            open_devices(inference, tell=tell, metrics=metrics, make_engine=make_engine)
        )
        avatars = stack.enter_context(
            open_avatars(config, inference, catalog, opened.devices, metrics)
        )
        share = SHARE if by_speed else _MORE_THAN_THERE_IS
        cost = FrameCost()
        backend = stack.enter_context(
            LocalBackend(avatars, opened.devices, live_share=share, besides=cost)
        )
        entries = dict(config.models)
        for name, entry in inference.models.items():
            if entry.preload and name in catalog:
                entries[name] = entries.get(name, entry).model_copy(update={"preload": True})
        server = stack.enter_context(
            _compositing(
                config,
                catalog,
                avatars,
                backend,
                entries,
                url="",
                leases=backend,
                max_requests=opened.requests + _TO_BE_REFUSED,
                tell=tell,
                place=place,
                metrics=metrics,
                own_socket=own_socket,
                live=opened.alive,
                cost=cost,
            )
        )
        yield server


@contextmanager
def _compositing(
    config: CompositingConfig,
    catalog: Packages,
    avatars: Registry[LoadedAvatar],
    backend: Backend,
    entries: Mapping[str, ModelEntry],
    *,
    url: str,
    leases: Leases | None,
    max_requests: int,
    tell: Tell,
    place: WorkerPlace | None,
    metrics: ServerMetrics,
    own_socket: Path | None,
    live: Callable[[], bool] = lambda: True,
    cost: FrameCost | None = None,
) -> Iterator[RpcServer]:
    web = has_web(config, serve=not url)
    if web:
        check_web(config.web, closed=config.closed(config.server))
    with ExitStack() as stack:
        redis = stack.enter_context(open_redis(config.redis, tell=tell, metrics=metrics))
        stack.enter_context(hearing_of_versions(config.redis, catalog, metrics))
        control = stack.enter_context(
            open_access_control(config.security, config.server, redis, config.redis.keys)
        )
        wanted = [
            name for name, entry in entries.items() if entry.preload or entry.preload_backgrounds
        ]
        loaded = preload(wanted, avatars.load)
        most = avatars.stats().max_items or 0
        tell("Compositing registry", registry_facts(catalog, loaded, most))
        choose = choosing(catalog, avatars, backend if url else None, metrics)
        encoders = stack.enter_context(AudioEncoders())
        count = None if place is None else stack.enter_context(_shared_count(place))
        sessions = stack.enter_context(
            open_live_sessions(
                config,
                avatars,
                encoders,
                leases,
                exists=catalog.__contains__,
                count=count,
                prefix="" if place is None else place.session_prefix,
                metrics=metrics,
                cost=cost,
                redis=redis,
                choose=choose,
            )
        )
        compositor = Compositor(
            avatars,
            encoders,
            frame_format=config.output.format,
            crf=config.output.h264_crf,
            max_answer_bytes=config.server.max_message_bytes,
            threads=stack.enter_context(_threads()),
            choose=choose,
        )
        kind = (
            LoggingCompositingServicer
            if config.logging.log_compositing_times
            else CompositingServicer
        )
        servicer = kind(
            compositor,
            avatars,
            backend,
            names=catalog.names,
            inference_url=url,
            sessions=sessions,
        )
        options = ServerOptions(
            host=config.server.host,
            port=config.server.port,
            own_socket=own_socket,
            max_message_bytes=config.server.max_message_bytes,
            max_request_bytes=config.server.max_request_bytes,
            max_requests=max_requests,
            max_streams=config.live.max_sessions + _TO_BE_REFUSED,
            finished=measured_calls(metrics),
            **transport_options(control, config.server),
        )

        health = recent_health(backend)
        measure_backend(metrics, health)
        measure_sessions(
            metrics,
            sessions,
            lambda: min(health().live_capacity, config.live.max_sessions),
        )
        measure_audit(metrics, control)

        healthy = telling_why_not(lambda: backend.health(call=Call(HEALTH_TIMEOUT_S)))

        pages: list[WebServer] = []
        """The one that is opened below, where there is one."""
        speaking = stack.enter_context(open_speaking(config, tell=tell))
        if web and speaking is not None:
            speaking.prepare()  # somebody who opens the page need not wait for it
        renders = stack.enter_context(
            open_renders(
                config,
                avatars,
                encoders,
                voice=None if speaking is None else speaking.voice,
                tell=tell,
                metrics=metrics,
                backend=backend,
                redis=redis,
                first=place is None or place.index == 0,
                choose=choose,
            )
        )
        conversing = ConversingServicer(
            sessions,
            config.output.live_format,
            speak=speaking,
            erase=erasing(
                catalog,
                avatars,
                backend,
                sessions,
                renders=None if renders is None else renders.renders,
            ),
        )
        # Networks elsewhere are told by whoever is asked, and not once more by every process.
        part = AvatarsServicer(
            avatars,
            names=catalog.names,
            networks=None if url else backend,
            sessions=sessions,
        )
        server = stack.enter_context(
            listening(
                [
                    compositing_service(servicer),
                    avatar_service(conversing),
                    *_render_services(renders, catalog, speaking is not None),
                ],
                options,
                healthy=healthy,
                live=lambda: live() and all(page.answers() for page in pages),
                on_drain=conversing.drain,
                place=place,
                parts=[compositing_service(part), avatar_service(conversing)],
                most_live=config.live.max_sessions,
            )
        )
        facts = {"Protocol": "gRPC, protobuf", "Frames": frames_fact(config.output)}
        tell(f"Compositing server listening on port {server.port}", facts)
        if web:
            page = stack.enter_context(
                open_web(
                    config.web,
                    sessions,
                    catalog.names,
                    healthy=healthy,
                    tell=tell,
                    speak=speaking,
                    control=control,
                    tls=server_tls(config.server.tls),
                    place=place,
                    counts=dict if count is None else count.each,
                    metrics=metrics,
                    redis=redis,
                    renders=renders,
                )
            )
            pages.append(page)
        if speaking is not None:
            # Beside it the first requests would be slow.
            speaking.wait_prepared(_VOICE_WITHIN_S)
        yield server


def _render_services(
    renders: OpenedRenders | None, catalog: Packages, speaks: bool
) -> Iterator[Service]:
    if renders is not None:
        yield render_service(RendersServicer(renders.renders, catalog.names, speaks=speaks))


def _shared_count(place: WorkerPlace) -> "SharedCount":
    from lipwire.rpc.workers.sessioncount import SharedCount  # not where ports cannot be shared

    return SharedCount(place)


@contextmanager
def _threads() -> Iterator[Executor | None]:
    """Threads that compose the frames of a batch side by side, where there are cores for them."""
    cores = usable_cores()
    if cores == 1:
        yield None
        return
    with ThreadPoolExecutor(cores, thread_name_prefix="lipwire-compose") as threads:
        yield threads
