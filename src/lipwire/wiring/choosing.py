"""Which devices a server's networks run on: what its configuration asks for, of what is there."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lipwire.config import InferenceConfig, usable_cores
from lipwire.domain import DependencyMissing, InvalidInput, LipwireError
from lipwire.engine import (
    Device,
    Driver,
    Engine,
    GpuInfo,
    HotTier,
    NoDriver,
    Tuning,
    cuda_problem,
    kernels_problem,
    open_driver,
)

GIB: Final = 2**30
_MIB: Final = 2**20
STREAMS: Final = Tuning().streams
"""Runs at a time on a GPU: one computes while the other is brought and fetched. What more of them
would do for many small requests, one batch for all of them does."""
_SHARE: Final = 0.75
"""Of the memory that is free, what several processes take for weights and crops; the rest is for
running them."""
_LANES: Final = 4
"""Runs of one specialised network at a time: each takes memory of its own. What comes besides runs
in the session that all share."""
_logger = logging.getLogger("lipwire.wiring")


@dataclass(frozen=True, slots=True)
class ChosenDevice:
    """A device that networks are to run on (``gpu`` None is the processor), with its limits:
    ``workers`` runs of networks at a time; ``memory_bytes`` for networks' weights and avatars'
    crops in this process (None: no limit but the device's memory), and ``crop_bytes`` of them for
    crops (None: what weights leave). ``kernels`` says whether Lipwire's own GPU kernels may run
    there. On the processor, networks that run specialised (by OpenVINO) may take ``hot_bytes`` of
    memory; 0 where there are to be none."""

    gpu: GpuInfo | None
    """The GPU; None is the processor."""
    workers: int
    """How many runs of networks are made at a time."""
    memory_bytes: int | None
    """The most of its memory for weights and crops in this process; None where there is no limit
    but its own."""
    crop_bytes: int | None = None
    """The most of it for crops; None for whatever weights leave."""
    kernels: bool = True
    """Whether kernels of our own may run there (``Tuning.kernels``)."""
    hot_bytes: int = 0
    """The most memory for specialised networks on the processor; 0 for none of them."""

    @property
    def index(self) -> int:
        """The device's number in answers to clients, as CUDA counts, from 0; 0 where it is the
        processor."""
        return 0 if self.gpu is None else self.gpu.index

    @property
    def device(self) -> Device:
        """The device, in the form that ``Engine`` is opened with."""
        return Device.cpu() if self.gpu is None else Device.cuda(self.gpu.index)


@dataclass(frozen=True, slots=True)
class ChosenDevices:
    """The devices that networks are to run on (``devices``), the processor alone or one or more
    GPUs; the ``driver`` that reports the GPUs' state; and ``facts``, what is printed about the
    devices when a server starts, value by name."""

    devices: tuple[ChosenDevice, ...]
    """One or more, the processor alone or GPUs."""
    driver: Driver
    """Answers how the GPUs do."""
    facts: dict[str, object]
    """What is printed about the devices when the server starts, by name."""


MakeEngine = Callable[[ChosenDevice], Engine]


def choose_devices(config: InferenceConfig) -> ChosenDevices:
    """Return the devices that ``config`` asks for: GPUs, or the processor where there is no GPU,
    which is logged where one was asked for. Nothing is opened yet.

    CUDA and the driver are not touched where the configuration does not want them. Raises
    DependencyMissing where CUDA, or as many GPUs as are wanted, are required (``onnx.use_cuda`` is
    "strict") and not there, and InvalidInput where ``onnx.cuda_device_id`` is not the number of a
    GPU.
    """
    if not config.wants_cuda:
        return _processor(config, {})
    # CUDA's own order is quickest first; nvidia-smi and the driver count along the PCI bus.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    first = config.onnx.cuda_device_id
    problem = _problem(config, first)
    driver = open_driver()
    gpus = driver.gpus()
    unseen = ""
    if isinstance(driver, NoDriver):
        # Nobody can say what there is: what is asked for is believed.
        gpus, unseen = _believed(config), driver.reason
    elif not gpus:
        problem = problem or "the NVIDIA driver shows no GPU to this process"
    others = (gpu.index for gpu in gpus if gpu.index != first)
    if problem and any(_problem(config, index) is None for index in others):
        # CUDA works. The first is none, which is an error, or fails, and is left out then.
        problem = None
    if problem is not None:
        if config.requires_cuda:
            raise DependencyMissing(f"onnx.use_cuda is strict, but there is no CUDA: {problem}")
        _logger.warning(
            "CUDA is asked for (onnx.use_cuda) and NOT AVAILABLE: %s; networks run on the"
            " processor, which is many times slower",
            problem,
        )
        return _processor(config, {"CUDA": "asked for (onnx.use_cuda) and NOT AVAILABLE"})
    chosen = _asked_for(config, gpus)
    workers = config.server.worker_count_per_gpu
    crops_gb = config.gpus.crops_gb_per_gpu
    crop_bytes = None if crops_gb is None else int(crops_gb * GIB) // config.server.workers
    devices = tuple(
        ChosenDevice(
            gpu, workers, _memory_bytes(config, gpu, driver), crop_bytes, config.gpus.kernels
        )
        for gpu in chosen
    )
    facts: dict[str, object] = {f"GPU {gpu.index}": _line(gpu, driver) for gpu in chosen}
    if unseen:
        facts["Names and memory"] = f"not known: {unseen}"
    if len(chosen) > 1:
        facts["Avatars are assigned"] = config.gpus.assignment_strategy
    facts["Workers per GPU"] = workers
    return ChosenDevices(devices, driver, facts)


def make_engine(chosen: ChosenDevice) -> Engine:
    """Return a new engine, which runs networks, on the device ``chosen`` within its limits of
    memory; the caller closes it. Raises DependencyMissing where what the device needs is not
    installed, DeviceLost where the device does not work."""
    # One thread a run.
    tuning = Tuning(
        streams=min(chosen.workers, STREAMS),
        kernels=chosen.kernels,
        device_bytes=chosen.memory_bytes,
        crop_bytes=chosen.crop_bytes,
    )
    hot = HotTier(chosen.hot_bytes, min(chosen.workers, _LANES)) if chosen.hot_bytes else None
    return Engine(threads=1, device=chosen.device, tuning=tuning, hot=hot)


def workers_on_processor(config: InferenceConfig) -> int:
    """Return how many runs of networks this process makes on the processor at a time: the
    ``worker_count_per_gpu`` of ``config``, but at most its share of the cores, which the server's
    processes divide; 1 at least."""
    share = max(1, usable_cores() // config.server.workers)
    return min(config.server.worker_count_per_gpu, share)


def _problem(config: InferenceConfig, index: int) -> str | None:
    """Why networks cannot run on GPU ``index``. Where ONNX Runtime does not run there, kernels of
    our own are enough, unless CUDA is required."""
    device = Device.cuda(index)
    problem = cuda_problem(device)
    may = config.gpus.kernels and not config.requires_cuda
    return None if problem and may and kernels_problem(device) is None else problem


def _processor(config: InferenceConfig, facts: dict[str, object]) -> ChosenDevices:
    workers = workers_on_processor(config)
    return ChosenDevices(
        (ChosenDevice(None, workers, None, hot_bytes=_hot_bytes(config)),),
        NoDriver("networks run on the processor"),
        {
            "GPU": "none, networks run on the processor",
            **facts,
            "Workers": f"{workers} (worker_count_per_gpu is {config.server.worker_count_per_gpu},"
            f" there are {usable_cores()} cores)",
        },
    )


def _hot_bytes(config: InferenceConfig) -> int:
    """The share of each of the server's processes; 0 for no specialised networks. Those are
    compiled in a process without the sandbox's limits, so with that there are none."""
    if config.onnx.precision == "float32" or config.capacity.compile_sandbox:
        return 0
    total: int = config.capacity.hot_memory_mb * _MIB
    return total // config.server.workers


def _believed(config: InferenceConfig) -> tuple[GpuInfo, ...]:
    first, count = config.onnx.cuda_device_id, config.gpus.count
    number = 1 if count == "auto" else count
    return tuple(GpuInfo(first + position, "a GPU", 0) for position in range(number))


def _asked_for(config: InferenceConfig, gpus: tuple[GpuInfo, ...]) -> tuple[GpuInfo, ...]:
    first, count = config.onnx.cuda_device_id, config.gpus.count
    if all(gpu.index != first for gpu in gpus):
        there = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in gpus)
        raise InvalidInput(f"onnx.cuda_device_id is {first}; the GPUs here are {there}")
    found = tuple(gpu for gpu in gpus if gpu.index >= first)
    if count == "auto":
        return found
    if count > len(found):
        after = f" from GPU {first} on" if first else ""
        missing = f"gpus.count is {count}, there are {len(found)}{after}"
        if config.requires_cuda:
            raise DependencyMissing(f"onnx.use_cuda is strict, but {missing}")
        _logger.warning("%s: networks run on %d", missing, len(found))
    return found[:count]


def _memory_bytes(config: InferenceConfig, gpu: GpuInfo, driver: Driver) -> int | None:
    """The share that each of the server's processes has of ``gpu``."""
    processes, wanted_gb = config.server.workers, config.gpus.memory_gb_per_gpu
    if wanted_gb is not None:
        wanted_bytes = int(wanted_gb * GIB)
        if 0 < gpu.memory_bytes < wanted_bytes:
            _logger.info(
                "gpus.memory_gb_per_gpu is %g, GPU %d has %.1f: that is the limit",
                wanted_gb,
                gpu.index,
                gpu.memory_bytes / GIB,
            )
            wanted_bytes = gpu.memory_bytes
        return wanted_bytes // processes
    if processes == 1:
        return None
    try:
        # The others start at this moment too, and may have begun to take their share.
        return int(driver.state(gpu.index).free_bytes * _SHARE) // processes
    except LipwireError:
        return None


def _line(gpu: GpuInfo, driver: Driver) -> str:
    """A GPU as the start-up output has it, in the guide's words."""
    total = f"{gpu.memory_bytes // 2**20} MB total" if gpu.memory_bytes else "memory not known"
    try:
        used = f"{driver.state(gpu.index).used_bytes // 2**20} MB used / "
    except LipwireError:
        used = ""
    return f"{gpu.name}, 0 models, {used}{total}"
