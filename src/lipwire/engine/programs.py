"""What runs kernels of our own on a device.

The kernels are text (``kernels/``), compiled for the device that they are to run on, which
``CudaPrograms`` does for NVIDIA's GPUs (``cudaprograms``). The tests have the same text run on the
processor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

HEADER_NAME: Final = "device.h"
"""What a source includes its header by."""


class KernelsUnavailable(Exception):
    """These kernels cannot run on this device, now or later; the reason is one line. ONNX Runtime
    may well run there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device has for kernels."""

    capability: tuple[int, int]
    """Compute capability, as (9, 0)."""
    multiprocessors: int
    shared_bytes: int
    """Shared memory that one block can ask for."""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One translation unit."""

    text: str
    header: str
    """The text of ``HEADER_NAME``, which ``text`` includes."""
    kernels: Mapping[str, int]
    """By name, the bytes of dynamic shared memory that a launch asks for at most."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel over a grid."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    """Of a block."""
    shared_bytes: int
    """Dynamic shared memory of a block; not more than its ``KernelSource`` says."""
    arguments: bytes
    """The one struct that the kernel takes, as C lays it out. Its size is not checked here."""


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """Kernels on a device. Only the ``Programs`` that loaded them knows what is in it."""

    handle: Any
    functions: Mapping[str, Any]
    """By the name of the kernel."""
    digest: str = ""
    """Of what the device runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Launches one after another. Only the ``Programs`` that recorded them knows what is in it."""

    handle: Any


class Programs(Protocol):
    """Thread-safe, but for a recording, which one thread at a time uses. Everything raises
    DeviceLost where the device has failed."""

    @property
    def limits(self) -> Limits: ...

    @property
    def identity(self) -> str | None:
        """The kind of device and its driver, for what is remembered of them; None where a kernel
        that does wrong harms nothing, or nobody else can try it."""
        ...

    def load(self, source: KernelSource) -> Module:
        """The kernels of ``source``, compiled (seconds) unless they were before.

        Passes the memory's gate, which the caller must not be inside of. Raises KernelsUnavailable,
        DeviceOutOfMemory.
        """
        ...

    def record(self, module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        """``launches``, to be run as one from then on. Passes the memory's gate, as ``load`` does.

        ``module`` is to outlive the recording; every run uses the addresses that the arguments
        have now. Raises ValueError for a launch that ``module`` does not allow,
        KernelsUnavailable, DeviceOutOfMemory.
        """
        ...

    def run(self, recording: Recording, stream: int) -> None:
        """Put one run into ``stream``, behind what is there and behind its earlier runs."""
        ...

    def drop(self, held: Module | Recording) -> None:
        """Nothing may run it any more. Passes the memory's gate, as ``load`` does."""
        ...
