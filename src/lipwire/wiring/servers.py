"""The servers, built from their configurations: each is a context manager that gives a listening
server.

The caller drains the server before the block ends. What the inference server and the compositing
server do in two processes ``open_serve`` does in one, without a socket in between.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from lipwire.avatars.catalog import Catalog
from lipwire.config import CompositingConfig, InferenceConfig, ModelEntry, usable_cores
from lipwire.config.compositing import OutputSettings
from lipwire.domain import Call, Tell
from lipwire.registry import Registry
from lipwire.rpc.server.server import (
    RpcServer,
    ServerOptions,
    avatar_service,
    compositing_service,
    inference_service,
    mouth_service,
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
from lipwire.rpc.workers import WorkerPlace
from lipwire.serving import AudioEncoders, Backend, Compositor, LoadedAvatar, LocalBackend
from lipwire.session.live import Leases
from lipwire.wiring.backends import connect_backend, open_devices
from lipwire.wiring.choosing import MakeEngine, make_engine
from lipwire.wiring.listening import listening
from lipwire.wiring.live import open_live_sessions
from lipwire.wiring.registries import (
    has_web,
    open_avatars,
    open_catalog,
    open_frames,
    open_networks,
    preload,
)
from lipwire.wiring.security import (
    open_access_control,
    server_tls,
    tell_exposure,
    transport_options,
)
from lipwire.wiring.speaking import open_speaking
from lipwire.wiring.web import check_web, open_web

if TYPE_CHECKING:
    from lipwire.rpc.workers.sessioncount import SharedCount

_COMPOSITING_REQUESTS: Final = 64
_TO_BE_REFUSED: Final = 8
"""Requests in hand besides those that the schedulers take in, so that it is they who refuse: they
know when to come back, and whose turn it is. Likewise streams besides the live sessions that there
may be: one may come to resume a session whose broken connection was not noticed yet."""
_HEALTH_TIMEOUT_S: Final = 1.0


@contextmanager
def open_inference_server(
    config: InferenceConfig,
    *,
    tell: Tell,
    place: WorkerPlace | None = None,
    make_engine: MakeEngine = make_engine,
) -> Iterator[RpcServer]:
    """Give the ``with`` block the inference server of ``config``, listening, and stop it
    afterwards; ``RpcServer.drain`` lets requests finish before that. A context manager.

    ``tell(heading, facts)`` is called, for people who start the server, with a heading and a
    mapping of names to values, for each part that is opened. ``place`` is that of this process
    among those that share the port; None where it is alone. ``make_engine(chosen)`` opens the
    engine of a device (``ChosenDevice``). Raises NotFound where there is no avatar,
    DependencyMissing where CUDA is required and not there, DeviceLost where a GPU that is needed
    does not work, InvalidInput where ``onnx.cuda_device_id`` is not the number of a GPU or a file
    of the configuration is not usable, Unavailable where the port is taken.
    """
    catalog = open_catalog(config)
    with ExitStack() as stack:
        control = stack.enter_context(open_access_control(config.security, config.server))
        opened = stack.enter_context(open_devices(config, tell=tell, make_engine=make_engine))
        networks = stack.enter_context(open_networks(config, catalog, opened.devices))
        backend = stack.enter_context(LocalBackend(networks, opened.devices))
        wanted = [name for name, entry in config.models.items() if entry.preload]
        loaded = preload(wanted, backend.load)
        most = backend.health().max_models
        tell("Model registry", _registry_facts(catalog, loaded, most))
        logging_times = config.logging.log_inference_times
        servicer = LoggingInferenceServicer if logging_times else InferenceServicer
        mouth_servicer = LoggingMouthServicer if logging_times else MouthServicer
        inference = inference_service(servicer(backend, names=catalog.names))
        options = ServerOptions(
            host=config.server.host,
            port=config.server.port,
            max_message_bytes=config.server.max_message_bytes,
            max_request_bytes=config.server.max_request_bytes,
            max_requests=opened.requests + _TO_BE_REFUSED,
            **transport_options(control, config.server),
        )
        server = stack.enter_context(
            listening(
                [inference, mouth_service(mouth_servicer(backend))],
                options,
                healthy=lambda: backend.health().healthy,
                place=place,
                parts=[inference],
            )
        )
        tell(f"Inference server listening on port {server.port}", {"Protocol": "gRPC, protobuf"})
        tell_exposure(control, config.security, config.server, tell)
        yield server


@contextmanager
def open_compositing_server(
    config: CompositingConfig, *, tell: Tell, place: WorkerPlace | None = None
) -> Iterator[RpcServer]:
    """Give the ``with`` block the compositing server of ``config``, listening, and stop it
    afterwards; ``RpcServer.drain`` lets requests finish before that. A context manager. The
    inference servers need not be there yet.

    ``tell(heading, facts)`` is called, for people who start the server, with a heading and a
    mapping of names to values, for each part that is opened. ``place`` is that of this process
    among those that share the port; None where it is alone. Raises NotFound where there is no
    avatar, InvalidInput where an address or a file of the configuration is not usable,
    DependencyMissing where its voice is not installed, Unavailable where the port is taken.
    """
    catalog = open_catalog(config)
    urls = ", ".join(config.inference_server.url)
    with ExitStack() as stack:
        backend = stack.enter_context(connect_backend(config))
        tell(f"Inference server {urls}", _health_facts(backend))
        avatars = stack.enter_context(open_frames(config, catalog, backend))
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
    make_engine: MakeEngine = make_engine,
    by_speed: bool = True,
) -> Iterator[RpcServer]:
    """Give the ``with`` block a server that does what both servers do, in this process, and stop it
    afterwards. A context manager.

    It listens where ``config`` says, and serves its avatars. ``inference`` says how networks are
    run, where files lie that ``config`` does not name, and what is preloaded; where ``inference``
    would listen does not count. Without ``by_speed``, live sessions are admitted although the
    networks are too slow for them, to measure what then happens. The other arguments, and what is
    raised, are as for ``open_inference_server``.
    """
    catalog = open_catalog(config, also=inference)
    with ExitStack() as stack:
        opened = stack.enter_context(open_devices(inference, tell=tell, make_engine=make_engine))
        avatars = stack.enter_context(open_avatars(config, inference, catalog, opened.devices))
        backend = stack.enter_context(LocalBackend(avatars, opened.devices))
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
                leases=backend if by_speed else None,
                max_requests=opened.requests + _TO_BE_REFUSED,
                tell=tell,
                place=place,
            )
        )
        yield server


@contextmanager
def _compositing(
    config: CompositingConfig,
    catalog: Catalog,
    avatars: Registry[LoadedAvatar],
    backend: Backend,
    entries: Mapping[str, ModelEntry],
    *,
    url: str,
    leases: Leases | None,
    max_requests: int,
    tell: Tell,
    place: WorkerPlace | None,
) -> Iterator[RpcServer]:
    web = has_web(config, serve=not url)
    if web:
        check_web(config.web, closed=config.closed(config.server))
    with ExitStack() as stack:
        control = stack.enter_context(open_access_control(config.security, config.server))
        wanted = [
            name for name, entry in entries.items() if entry.preload or entry.preload_backgrounds
        ]
        loaded = preload(wanted, avatars.load)
        most = avatars.stats().max_items or 0
        tell("Compositing registry", _registry_facts(catalog, loaded, most))
        encoders = stack.enter_context(AudioEncoders())
        count = None if place is None else stack.enter_context(_shared_count(place))
        sessions = stack.enter_context(
            open_live_sessions(
                config,
                avatars,
                encoders,
                leases,
                count=count,
                prefix="" if place is None else place.session_prefix,
            )
        )
        compositor = Compositor(
            avatars,
            encoders,
            frame_format=config.output.format,
            crf=config.output.h264_crf,
            max_answer_bytes=config.server.max_message_bytes,
            threads=stack.enter_context(_threads()),
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
            max_message_bytes=config.server.max_message_bytes,
            max_request_bytes=config.server.max_request_bytes,
            max_requests=max_requests,
            max_streams=config.live.max_sessions + _TO_BE_REFUSED,
            **transport_options(control, config.server),
        )

        def healthy() -> bool:
            return backend.health(call=Call(_HEALTH_TIMEOUT_S)).healthy

        speaking = stack.enter_context(open_speaking(config, tell=tell))
        conversing = ConversingServicer(sessions, config.output.live_format, speak=speaking)
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
                ],
                options,
                healthy=healthy,
                on_drain=conversing.drain,
                place=place,
                parts=[compositing_service(part), avatar_service(conversing)],
                most_live=config.live.max_sessions,
            )
        )
        tell(
            f"Compositing server listening on port {server.port}",
            {"Protocol": "gRPC, protobuf", "Frames": _frames_fact(config.output)},
        )
        tell_exposure(control, config.security, config.server, tell)
        if web:
            stack.enter_context(
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
                )
            )
            if speaking is not None:
                speaking.prepare()  # somebody who opens the page need not wait for it
        yield server


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


def _registry_facts(catalog: Catalog, loaded: int, most: int) -> dict[str, object]:
    return {"Known avatars": len(catalog.names()), "Preloaded": loaded, "Most at a time": most}


def _frames_fact(output: OutputSettings) -> str:
    if output.format == "raw":
        return "raw"
    if output.format == "h264":
        return f"H.264, quality {output.h264_crf}"
    return f"JPEG, quality {output.jpeg_quality}"


def _health_facts(backend: Backend) -> dict[str, object]:
    health = backend.health(call=Call(_HEALTH_TIMEOUT_S))
    if not health.healthy:
        return {"Not there yet": health.detail or "no answer"}
    return {
        "Connected": "yes",
        "GPUs": health.gpu_count,
        "Loaded models": f"{health.loaded_models}/{health.max_models}",
        "Version": health.version,
    }
