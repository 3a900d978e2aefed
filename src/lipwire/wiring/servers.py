"""The servers, built from their configurations: each is one block; whoever opened it drains it.

The inference server and the compositing server are the two halves of ``open_serve``, which has no
socket between them.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

from lipwire.avatars import Avatar
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.registry import Registry
from lipwire.config import CompositingConfig, InferenceConfig, ModelEntry, usable_cores
from lipwire.rpc.avatars import AvatarsServicer
from lipwire.rpc.backends import Backend
from lipwire.rpc.compositing import CompositingServicer
from lipwire.rpc.inference import InferenceServicer, MouthServicer
from lipwire.rpc.request_log import LoggingCompositingServicer
from lipwire.rpc.serving import (
    RpcServer,
    ServerOptions,
    compositing_service,
    inference_service,
    mouth_service,
)
from lipwire.rpc.workers import WorkerPlace
from lipwire.wiring.devices import MakeEngine, make_engine
from lipwire.wiring.listening import listening
from lipwire.wiring.networks import connect_backend, open_networks
from lipwire.wiring.pictures import Encoders, open_avatars, open_catalog, preload

Tell = Callable[[str, Mapping[str, object]], None]
"""Hears what becomes true while a server starts: a heading, and facts by name."""

_COMPOSITING_REQUESTS: Final = 64
_TO_BE_REFUSED: Final = 8
"""Requests in hand besides those that the schedulers take in, so that it is they who refuse: they
know when to come back, and whose turn it is."""
_HEALTH_TIMEOUT_S: Final = 1.0


@contextmanager
def open_inference_server(
    config: InferenceConfig,
    *,
    tell: Tell,
    place: WorkerPlace | None = None,
    make_engine: MakeEngine = make_engine,
) -> Iterator[RpcServer]:
    """The inference server, listening; it is stopped with the block, drained by ``drain``.

    ``place`` is that of this process among those that share the port; None where it is alone.
    ``make_engine`` makes the engine of each device.
    Raises NotFound where there is no avatar, DependencyMissing where CUDA is required and not
    there, InvalidInput where ``onnx.cuda_device_id`` is no GPU's, Unavailable where the port is
    taken.
    """
    catalog = open_catalog(config)
    with ExitStack() as stack:
        networks = stack.enter_context(
            open_networks(config, catalog, tell=tell, make_engine=make_engine)
        )
        backend = networks.backend
        wanted = [name for name, entry in config.models.items() if entry.preload]
        loaded = preload(wanted, backend.load)
        most = backend.health().max_models
        tell("Model registry", _registry_facts(catalog, loaded, most))
        inference = inference_service(InferenceServicer(backend, names=catalog.names))
        options = ServerOptions(
            host=config.server.host,
            port=config.server.port,
            max_message_bytes=config.server.max_message_bytes,
            max_request_bytes=config.server.max_request_bytes,
            max_requests=networks.requests + _TO_BE_REFUSED,
        )
        server = stack.enter_context(
            listening(
                [inference, mouth_service(MouthServicer(backend))],
                options,
                healthy=lambda: backend.health().healthy,
                place=place,
                part=inference,
            )
        )
        tell(f"Inference server listening on port {server.port}", {"Protocol": "gRPC, protobuf"})
        yield server


@contextmanager
def open_compositing_server(
    config: CompositingConfig, *, tell: Tell, place: WorkerPlace | None = None
) -> Iterator[RpcServer]:
    """The compositing server, as ``open_inference_server``. The inference servers need not be there
    yet."""
    catalog = open_catalog(config)
    urls = ", ".join(config.inference_server.url)
    with ExitStack() as stack:
        backend = stack.enter_context(connect_backend(config))
        tell(f"Inference server {urls}", _health_facts(backend))
        server = stack.enter_context(
            _compositing(
                config,
                catalog,
                backend,
                config.models,
                url=urls,
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
) -> Iterator[RpcServer]:
    """Both servers in this process, listening where the compositing server does.

    Avatars are those of ``config``. ``inference`` says how networks are run; its models and where
    it listens do not count, but what it preloads is preloaded. ``make_engine`` makes the engine of
    each device.
    """
    catalog = open_catalog(config)
    with ExitStack() as stack:
        networks = stack.enter_context(
            open_networks(inference, catalog, tell=tell, make_engine=make_engine)
        )
        entries = dict(config.models)
        for name, entry in inference.models.items():
            if entry.preload and name in entries:
                entries[name] = entries[name].model_copy(update={"preload": True})
        server = stack.enter_context(
            _compositing(
                config,
                catalog,
                networks.backend,
                entries,
                url="",
                max_requests=networks.requests + _TO_BE_REFUSED,
                tell=tell,
                place=place,
            )
        )
        yield server


@contextmanager
def _compositing(
    config: CompositingConfig,
    catalog: Catalog,
    backend: Backend,
    entries: Mapping[str, ModelEntry],
    *,
    url: str,
    max_requests: int,
    tell: Tell,
    place: WorkerPlace | None,
) -> Iterator[RpcServer]:
    with ExitStack() as stack:
        avatars = stack.enter_context(open_avatars(config, catalog))
        # In one process the network is there as well: a request then finds both.
        wanted = [
            name for name, entry in entries.items() if entry.preload or entry.preload_backgrounds
        ]
        networks_here = None if url else backend
        loaded = preload(wanted, lambda name: _load(avatars, networks_here, name))
        tell("Compositing registry", _registry_facts(catalog, loaded, config.capacity.max_models))
        kind = (
            LoggingCompositingServicer
            if config.logging.log_compositing_times
            else CompositingServicer
        )
        servicer = kind(
            backend,
            avatars,
            names=catalog.names,
            encoder_of=Encoders().of,
            frame_format=config.output.format,
            max_message_bytes=config.server.max_message_bytes,
            inference_url=url,
            threads=stack.enter_context(_threads()),
        )
        options = ServerOptions(
            host=config.server.host,
            port=config.server.port,
            max_message_bytes=config.server.max_message_bytes,
            max_request_bytes=config.server.max_request_bytes,
            max_requests=max_requests,
        )
        # Networks elsewhere are told by whoever is asked, and not once more by every process.
        part = AvatarsServicer(avatars, names=catalog.names, networks=networks_here)
        server = stack.enter_context(
            listening(
                [compositing_service(servicer)],
                options,
                healthy=lambda: backend.health(timeout_s=_HEALTH_TIMEOUT_S).healthy,
                place=place,
                part=compositing_service(part),
            )
        )
        quality = config.output.jpeg_quality
        frames = f"JPEG, quality {quality}" if config.output.format == "jpeg" else "raw"
        tell(
            f"Compositing server listening on port {server.port}",
            {"Protocol": "gRPC, protobuf", "Frames": frames},
        )
        yield server


def _load(avatars: Registry[Avatar], backend: Backend | None, name: str) -> None:
    avatars.load(name)
    if backend is not None:
        backend.load(name)


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


def _health_facts(backend: Backend) -> dict[str, object]:
    health = backend.health(timeout_s=_HEALTH_TIMEOUT_S)
    if not health.healthy:
        return {"Not there yet": health.detail or "no answer"}
    return {
        "Connected": "yes",
        "GPUs": health.gpu_count,
        "Loaded models": f"{health.loaded_models}/{health.max_models}",
        "Version": health.version,
    }
