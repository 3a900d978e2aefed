"""Opening what runs a server's networks: devices of this process, or a connection to inference
servers."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from lipwire.config import CompositingConfig, InferenceConfig
from lipwire.domain import Tell
from lipwire.engine import MOST_FRAMES, DeviceLost, Engine
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.backends import RemoteBackend
from lipwire.scheduling import MAX_RUN_FRAMES, Observer, Scheduler, SchedulerStats
from lipwire.serving import (
    Backend,
    Devices,
    NetworkKey,
    Placement,
    ServerDevice,
    run_across,
    run_on,
)
from lipwire.wiring.choosing import STREAMS, ChosenDevice, MakeEngine, choose_devices, make_engine
from lipwire.wiring.measuring import MeasuredRuns, measure_networks, measure_schedulers
from lipwire.wiring.security import client_security

_logger = logging.getLogger("lipwire.wiring")


@dataclass(frozen=True, slots=True)
class OpenedDevices:
    """The GPUs, or the processor, that this process runs networks on, each with its engine and
    scheduler; ``requests``, the most requests that may run or wait on them at a time; and
    ``alive()``, which returns whether the workers of each device that is not lost are still
    running."""

    devices: Devices
    requests: int
    """How many requests are run or wait for a worker at a time, at most."""
    alive: Callable[[], bool]
    """Whether the workers of each device that is not lost are there."""


@contextmanager
def open_devices(
    config: InferenceConfig,
    *,
    tell: Tell,
    metrics: ServerMetrics,
    make_engine: MakeEngine = make_engine,
) -> Iterator[OpenedDevices]:
    """Open the devices (GPUs, or the processor) that ``config`` asks for, each with an engine and a
    scheduler, give them to the ``with`` block, and close them afterwards. A context manager.

    ``make_engine(chosen)`` opens the engine of a device (``ChosenDevice``). ``tell(heading,
    facts)`` is called with a mapping of names to values about the devices, for people who start the
    server; ``metrics`` gets numbers about their queues. A GPU that does not work is left out and
    logged. Raises DependencyMissing where CUDA is required and not there, DeviceLost where CUDA is
    required and one of the GPUs does not work, or where no GPU works, and InvalidInput where
    ``onnx.cuda_device_id`` is not the number of a GPU.
    """
    chosen = choose_devices(config)
    placement = Placement(
        config.gpus.assignment_strategy,
        [device.index for device in chosen.devices],
        most=config.capacity.max_models_on_each(len(chosen.devices)),
    )
    with ExitStack() as stack:
        opened: list[ServerDevice] = []
        schedulers: dict[str, Callable[[], SchedulerStats]] = {}
        workers: list[tuple[ServerDevice, Scheduler[NetworkKey]]] = []
        facts = dict(chosen.facts)
        for device in chosen.devices:
            opening = _open_device(
                device, config.server.queue_size, make_engine, MeasuredRuns(metrics)
            )
            try:
                there, scheduler = stack.enter_context(opening)
                opened.append(there)
                workers.append((there, scheduler))
                schedulers["cpu" if device.gpu is None else f"gpu{device.index}"] = scheduler.stats
            except DeviceLost as error:
                # The driver lists it and it does not work: the others do.
                if config.requires_cuda or placement.devices == (device.index,):
                    raise
                _logger.error("GPU %d cannot be used: %s", device.index, error)
                facts[f"GPU {device.index}"] = f"CANNOT BE USED: {error}"
                placement.lose(device.index)
        devices = stack.enter_context(Devices(opened, placement, chosen.driver))
        tell("GPU status", facts)
        measure_schedulers(metrics, schedulers)
        measure_networks(metrics, devices)
        # Each device has as many workers as any other.
        taken_in = chosen.devices[0].workers + config.server.queue_size

        def alive() -> bool:
            return all(device.lost or scheduler.alive for device, scheduler in workers)

        yield OpenedDevices(devices, len(opened) * taken_in, alive)


@contextmanager
def _open_device(
    chosen: ChosenDevice, queue_size: int, make_engine: MakeEngine, observer: Observer
) -> Iterator[tuple[ServerDevice, Scheduler[NetworkKey]]]:
    with make_engine(chosen) as engine:
        scheduler = _scheduler(engine, chosen, queue_size, observer)
        device = ServerDevice(engine, scheduler, index=chosen.index, gpu=chosen.gpu)
        try:
            yield device, scheduler
        finally:
            if device.lost:  # nobody waits for what still runs there
                scheduler.drain(0.0)
            else:
                scheduler.close()


def _scheduler(
    engine: Engine, chosen: ChosenDevice, queue_size: int, observer: Observer
) -> Scheduler[NetworkKey]:
    on_gpu = chosen.gpu is not None
    return Scheduler(
        run_on(engine),
        # More of them would take what could be joined out of the queue, to wait for a stream.
        workers=min(chosen.workers, STREAMS + 1) if on_gpu else chosen.workers,
        queue_size=queue_size,
        # A GPU runs a batch at once, in not much more than one frame's time.
        max_run_frames=MOST_FRAMES if on_gpu else MAX_RUN_FRAMES,
        join=on_gpu,
        across=run_across(engine) if on_gpu else None,
        split=not on_gpu,
        observer=observer,
        name=f"lipwire-run-gpu-{chosen.index}" if on_gpu else "lipwire-run",
    )


@contextmanager
def connect_backend(config: CompositingConfig) -> Iterator[Backend]:
    """Give the ``with`` block a backend that has mouths made by the inference servers of
    ``config``, and close it afterwards. A context manager. It connects in the background: the
    servers need not be there yet. Raises InvalidInput where an address or a file of ``config`` is
    not usable."""
    servers = config.inference_server
    with RemoteBackend(
        servers.url,
        timeout_s=servers.timeout_seconds,
        max_retries=servers.max_retries,
        replicas=servers.replicas,
        max_message_bytes=config.server.max_message_bytes,
        use_proxy=servers.use_proxy,
        security=client_security(servers),
    ) as backend:
        yield backend
