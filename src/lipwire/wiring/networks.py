"""Where a server's mouths come from: networks in this process, or inference servers."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from lipwire.avatars.catalog import Catalog
from lipwire.avatars.holdings import Loaded
from lipwire.avatars.registry import Registry
from lipwire.avatars.versions import package_version
from lipwire.config import CompositingConfig, InferenceConfig
from lipwire.engine import DeviceLost, Engine
from lipwire.engine.gpunetworks import MOST_FRAMES
from lipwire.engine.scheduler import MAX_RUN_FRAMES, Scheduler
from lipwire.rpc.backends import (
    Backend,
    DevicesBackend,
    LocalBackend,
    Network,
    NetworkKey,
    Placement,
    RemoteBackend,
    ServerDevice,
    load_network,
    placed,
    run_across,
    run_on,
)
from lipwire.wiring.devices import LANES, ChosenDevice, MakeEngine, choose_devices, make_engine
from lipwire.wiring.periodic import every
from lipwire.wiring.pictures import check_frames, logging_stats, sweeping

Tell = Callable[[str, Mapping[str, object]], None]

CHECK_GPUS_EVERY_S: Final = 2.0
_logger = logging.getLogger("lipwire.wiring")


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of this process."""

    backend: Backend
    requests: int
    """How many requests are run or wait for a worker at a time, at most."""


@contextmanager
def open_networks(
    config: InferenceConfig,
    catalog: Catalog,
    *,
    tell: Tell,
    make_engine: MakeEngine = make_engine,
) -> Iterator[Networks]:
    """Networks on the devices that ``config`` asks for, each with an engine of ``make_engine``;
    closed with the block.

    A GPU that does not work is left out. Raises DependencyMissing where CUDA is required and not
    there, DeviceLost where it is required and one of the GPUs does not work, or none does, and
    InvalidInput where the first GPU to use is none.
    """
    chosen = choose_devices(config)
    capacity = config.capacity
    placement = Placement(
        config.gpus.assignment_strategy,
        [device.index for device in chosen.devices],
        most=capacity.max_models_per_gpu,
    )
    with ExitStack() as stack:
        opened: list[ServerDevice] = []
        facts = dict(chosen.facts)
        for device in chosen.devices:
            opening = _open_device(
                config, catalog, device, placement, len(chosen.devices), make_engine
            )
            try:
                opened.append(stack.enter_context(opening))
            except DeviceLost as error:
                # The driver lists it and it does not work: the others do.
                if config.requires_cuda or placement.devices == (device.index,):
                    raise
                _logger.error("GPU %d cannot be used: %s", device.index, error)
                facts[f"GPU {device.index}"] = f"CANNOT BE USED: {error}"
                placement.lose(device.index)
        backend = stack.enter_context(DevicesBackend(opened, placement, chosen.driver))
        if any(device.gpu is not None for device in opened):
            stack.enter_context(every(CHECK_GPUS_EVERY_S, backend.check, "checking the GPUs"))
        tell("GPU status", facts)
        # Each device has as many workers as any other.
        taken_in = chosen.devices[0].workers + config.server.queue_size
        yield Networks(backend, len(opened) * taken_in)


@contextmanager
def _open_device(
    config: InferenceConfig,
    catalog: Catalog,
    chosen: ChosenDevice,
    placement: Placement,
    devices: int,
    make_engine: MakeEngine,
) -> Iterator[ServerDevice]:
    """One of ``devices`` devices, with an engine, a registry and a scheduler of its own."""
    capacity = config.capacity
    where = "" if chosen.gpu is None else f" on GPU {chosen.index}"
    with ExitStack() as stack:
        engine = stack.enter_context(make_engine(chosen))

        def load(name: str) -> Loaded[Network]:
            loaded = load_network(engine, catalog.path(name))
            try:
                check_frames(name, loaded.value.avatar.frame_count, config.models.get(name))
            except BaseException:
                loaded.close()
                raise
            return loaded

        most_bytes = capacity.max_memory_bytes
        networks = stack.enter_context(
            Registry(
                placed(load, placement, chosen.index),
                max_items=capacity.max_models_per_gpu,
                max_bytes=None if most_bytes is None else most_bytes // devices,
                policy=capacity.eviction_policy,
                idle_s=capacity.idle_timeout_s,
                version=lambda name: package_version(catalog.path(name)),
                kind="model",
            )
        )
        stack.enter_context(sweeping(networks.sweep, capacity.idle_timeout_s))
        lost = threading.Event()
        scheduler = stack.enter_context(_scheduling(engine, chosen, config.server.queue_size, lost))
        if config.logging.log_cache_stats:
            stack.enter_context(logging_stats(f"networks loaded{where}", networks))
        backend = LocalBackend(
            networks, scheduler, max_models=capacity.max_models_per_gpu, gpu_id=chosen.index
        )

        def give_up() -> None:
            lost.set()
            scheduler.drain(0.0)
            networks.close(0.0)

        yield ServerDevice(chosen.index, chosen.gpu, backend, give_up)


@contextmanager
def _scheduling(
    engine: Engine, chosen: ChosenDevice, queue_size: int, lost: threading.Event
) -> Iterator[Scheduler[NetworkKey]]:
    """The scheduler of one device. Where it is ``lost``, nobody waits for what still runs there."""
    on_gpu = chosen.gpu is not None
    scheduler = Scheduler(
        run_on(engine),
        # More of them would take what could be joined out of the queue, to wait for a lane.
        workers=min(chosen.workers, LANES + 1) if on_gpu else chosen.workers,
        queue_size=queue_size,
        # A GPU runs a batch at once, in not much more than one frame's time.
        max_run_frames=MOST_FRAMES if on_gpu else MAX_RUN_FRAMES,
        join=on_gpu,
        across=run_across(engine) if on_gpu else None,
        split=not on_gpu,
        name=f"lipwire-run-gpu-{chosen.index}" if on_gpu else "lipwire-run",
    )
    try:
        yield scheduler
    finally:
        if lost.is_set():
            scheduler.drain(0.0)
        else:
            scheduler.close()


@contextmanager
def connect_backend(config: CompositingConfig) -> Iterator[Backend]:
    """The inference servers of ``config``, connected to in the background."""
    servers = config.inference_server
    with RemoteBackend(
        servers.url,
        timeout_s=servers.timeout_seconds,
        max_retries=servers.max_retries,
        max_message_bytes=config.server.max_message_bytes,
    ) as backend:
        yield backend
