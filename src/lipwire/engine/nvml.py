"""The machine's GPUs as NVIDIA's driver knows them: names, memory, use, and whether they are there.

NVML is asked, through the package nvidia-ml-py. Nothing of it is imported, and no library of
NVIDIA's loaded, before ``open_driver`` is called; where the package is missing or the driver does
not answer there is a ``NoDriver`` with the reason.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from lipwire.domain import LipwireError
from lipwire.engine.device import DeviceLost


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """Facts about a GPU that do not change: ``index``, CUDA's number for the GPU in this process,
    from 0 (the same number as in ``nvidia-smi``, unless CUDA_VISIBLE_DEVICES leaves GPUs out), its
    ``name``, and the size of its memory, 0 where the driver does not say."""

    index: int
    """CUDA's number for it in this process: that of ``nvidia-smi``, unless CUDA_VISIBLE_DEVICES
    leaves some out."""
    name: str
    memory_bytes: int
    """All of it; 0 where the driver does not say."""


@dataclass(frozen=True, slots=True)
class GpuState:
    """The state of a GPU at one moment, with the use that other programs make of it: ``used_bytes``
    and ``free_bytes`` of its memory, and ``utilisation``, the share of the last moments in which it
    was at work, 0 to 1. Each is 0 where the driver does not support the question."""

    used_bytes: int
    free_bytes: int
    utilisation: float
    """Share of the last moments in which it was at work, 0 to 1; 0 where the driver does not say.
    """


class Driver(Protocol):
    """Answers questions about the machine's GPUs, from any thread, within milliseconds. Where there
    is no driver to ask, ``NoDriver`` answers."""

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Return the GPUs that CUDA offers to this process, in the order of CUDA's numbers
        (``GpuInfo.index``); an empty tuple where there are none or no driver answers."""
        ...

    def state(self, index: int) -> GpuState:
        """Return the state of GPU number ``index``, in CUDA's order in this process, from 0.

        Raises DeviceLost where there is no such GPU or it has failed, LipwireError where the driver
        does not answer.
        """
        ...


class NoDriver:
    """A ``Driver`` for a machine on which no GPU's driver can be asked: it knows of no GPU."""

    def __init__(self, reason: str) -> None:
        """``reason`` is why there is none: one line, for people."""
        self.reason: Final = reason

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Return an empty tuple: no GPU is known."""
        return ()

    def state(self, index: int) -> GpuState:
        """Raise LipwireError, for any ``index``: nothing is known about any GPU. The message gives
        ``reason``."""
        raise LipwireError(f"nothing is known of GPU {index}: {self.reason}")


class NvmlDriver:
    """A ``Driver`` that answers questions about GPUs by asking NVIDIA's management library (NVML).
    The library stays initialised."""

    def __init__(self, nvml: Any, environ: Mapping[str, str] = os.environ) -> None:
        """``nvml`` is the module pynvml. ``environ`` has the environment's variables; only
        CUDA_VISIBLE_DEVICES is read. Raises the module's NVMLError where the library cannot be
        used."""
        self._nvml = nvml
        self._handles: dict[int, Any] = dict(enumerate(_visible(nvml, environ)))
        self._lost: Final = frozenset(
            (
                nvml.NVML_ERROR_DRIVER_NOT_LOADED,
                nvml.NVML_ERROR_GPU_IS_LOST,
                nvml.NVML_ERROR_RESET_REQUIRED,
            )
        )

    def gpus(self) -> tuple[GpuInfo, ...]:
        """Return the GPUs that CUDA offers to this process, in the order of CUDA's numbers. A GPU
        whose name the driver does not say is called "unnamed GPU"."""
        return tuple(
            GpuInfo(
                index,
                _told(self._nvml, self._nvml.nvmlDeviceGetName, handle) or "unnamed GPU",
                getattr(_told(self._nvml, self._nvml.nvmlDeviceGetMemoryInfo, handle), "total", 0),
            )
            for index, handle in self._handles.items()
        )

    def state(self, index: int) -> GpuState:
        """Return the state of GPU number ``index``, in CUDA's order in this process, from 0. Raises
        DeviceLost where there is no such GPU or it has failed, LipwireError for any other error of
        the driver."""
        nvml, handle = self._nvml, self._handles.get(index)
        if handle is None:
            raise DeviceLost(f"GPU {index} is not there; those that are: {sorted(self._handles)}")
        try:
            memory = _supported(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
            rates = _supported(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        except nvml.NVMLError as error:
            kind = DeviceLost if error.value in self._lost else LipwireError
            raise kind(f"GPU {index}: the driver says: {error}") from None
        return GpuState(
            used_bytes=0 if memory is None else int(memory.used),
            free_bytes=0 if memory is None else int(memory.free),
            utilisation=0.0 if rates is None else rates.gpu / 100,
        )


def open_driver() -> Driver:
    """Return a ``Driver``, which answers questions about this machine's GPUs: one that asks
    NVIDIA's management library (``NvmlDriver``), or a ``NoDriver`` where the library or the GPU's
    driver is missing. Raises nothing."""
    try:
        import pynvml
    except ImportError:
        return NoDriver("nvidia-ml-py is not installed; it comes with lipwire[gpu]")
    try:
        pynvml.nvmlInit()
        return NvmlDriver(pynvml)
    except pynvml.NVMLError as error:
        return NoDriver(f"the NVIDIA driver does not answer: {error}")


def _visible(nvml: Any, environ: Mapping[str, str]) -> list[Any]:
    """Handles of the GPUs that CUDA will show this process, in its order.

    CUDA_VISIBLE_DEVICES holds numbers or UUIDs, which may be shortened; the first that means no GPU
    ends the list (CUDA C++ Programming Guide, "CUDA Environment Variables"). NVML takes no notice
    of it, and counts in the order of the PCI bus.
    """
    every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    wanted = environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return every
    found: list[Any] = []
    for entry in (part.strip() for part in wanted.split(",")):
        handle = _named(nvml, every, entry)
        if handle is None:
            break
        found.append(handle)
    return found


def _named(nvml: Any, every: list[Any], entry: str) -> Any:
    if entry.isascii() and entry.isdigit():
        return every[int(entry)] if int(entry) < len(every) else None
    if entry.startswith("MIG-"):  # a part of a GPU, which is none of ``every``
        return _told(nvml, nvml.nvmlDeviceGetHandleByUUID, entry)
    if not entry.startswith("GPU-"):
        return None
    matching = [
        handle
        for handle in every
        if str(_told(nvml, nvml.nvmlDeviceGetUUID, handle)).startswith(entry)
    ]
    return matching[0] if len(matching) == 1 else None


def _told(nvml: Any, ask: Any, about: Any) -> Any:
    """What NVML says; None where it does not."""
    try:
        return ask(about)
    except nvml.NVMLError:
        return None


def _supported(nvml: Any, ask: Any, about: Any) -> Any:
    """What NVML says; None where this kind of GPU has no such thing. Raises NVMLError."""
    try:
        return ask(about)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_NOT_SUPPORTED:
            return None
        raise
