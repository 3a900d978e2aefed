"""What runs kernels of our own on a device.

The kernels are text (``kernels/``), compiled for the device that they are to run on, which
``CudaPrograms`` does for NVIDIA's GPUs (``cudaprograms``). The tests have the same text run on the
processor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

HEADER_NAME: Final = "device.h"
"""The name by which a source includes its header."""


class KernelsUnavailable(Exception):
    """Lipwire's own kernels cannot run on a device, now or later; the message is one line that says
    why. ONNX Runtime may be able to run there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device offers to kernels: its compute ``capability``, such as (9, 0), how many
    ``multiprocessors`` it has, and the most bytes of shared memory that a block of threads can ask
    for."""

    capability: tuple[int, int]
    """Compute capability, as (9, 0)."""
    multiprocessors: int
    shared_bytes: int
    """Shared memory that one block can ask for."""


@dataclass(frozen=True, slots=True)
class KernelSource:
    """The source of kernels that are compiled together: the ``text``, the ``header`` that it
    includes as HEADER_NAME, and by the name of each of the ``kernels`` how many bytes of dynamic
    shared memory a launch of it asks for at most."""

    text: str
    header: str
    """The text of ``HEADER_NAME``, which ``text`` includes."""
    kernels: Mapping[str, int]
    """The bytes of dynamic shared memory that a launch asks for at most, by the name of the
    kernel."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a ``kernel``, named as in its source, over a ``grid`` of blocks of ``threads``
    threads each.

    ``shared_bytes`` is the dynamic shared memory of a block, not more than ``KernelSource.kernels``
    says. ``arguments`` is the one struct that the kernel takes, as C lays it out; its size is not
    checked.
    """

    kernel: str
    grid: tuple[int, int, int]
    threads: int
    """Threads of each block."""
    shared_bytes: int
    """Dynamic shared memory of a block; not more than its ``KernelSource`` says."""
    arguments: bytes
    """The one struct that the kernel takes, as C lays it out. Its size is not checked here."""


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """Kernels that ``Programs.load`` has loaded on a device: ``functions`` has those that can be
    launched, by the kernel's name. ``handle`` and the values of ``functions`` mean something only
    to the ``Programs`` that loaded them. ``digest`` is a hash of what the device runs."""

    handle: Any
    functions: Mapping[str, Any]
    """The functions of the kernels, by the name of the kernel."""
    digest: str = ""
    """Hash of what the device runs."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """Launches of kernels that ``Programs.record`` has recorded, to be run one after another.
    ``handle`` means something only to the ``Programs`` that recorded them."""

    handle: Any


class Programs(Protocol):
    """Loads and runs kernels on one device. Thread-safe, but a ``Recording`` is for one thread at a
    time.

    Every method raises DeviceLost where the device has failed.
    """

    @property
    def limits(self) -> Limits:
        """What the device offers to kernels: its compute capability, how many multiprocessors it
        has, and how much shared memory a block of threads can have."""

    @property
    def identity(self) -> str | None:
        """A text that is the same for equal kinds of devices with the same driver. Kernels that
        have passed their trial (``Trials``) under this text are not tried again.

        None where trials are to be made in this process, because a wrong kernel does no harm there,
        or no other process can use the device.
        """
        ...

    def load(self, source: KernelSource) -> Module:
        """Load the kernels of ``source`` on the device; they are compiled now, which takes seconds,
        unless they were compiled before.

        Acquires ``Memory.allocation_lock``, which the caller must not hold. The caller passes the
        result to ``drop`` in the end. Raises KernelsUnavailable where they cannot be compiled or
        need more than the device has, DeviceOutOfMemory where its memory is full.
        """
        ...

    def record(self, module: Module, launches: Sequence[Launch], stream: int) -> Recording:
        """Record ``launches`` of kernels of ``module``, one after another, and return the
        recording, to be run with ``run``. Nothing is computed yet.

        ``stream`` is the handle of a stream of the device (``Memory.open_stream``), through which
        the recording may be copied to the device. Every run uses the addresses in the arguments of
        the launches as they are now. ``module`` has to outlive the recording, which the caller
        passes to ``drop`` in the end. Acquires ``Memory.allocation_lock``, which the caller must
        not hold.

        Raises ValueError for a launch of a kernel that ``module`` does not have, or with a grid,
        threads or shared memory that are not allowed, KernelsUnavailable where the device refuses
        the launches, DeviceOutOfMemory where its memory is full.
        """
        ...

    def run(self, recording: Recording, stream: int) -> None:
        """Put one run of ``recording`` at the end of the stream with handle ``stream``, without
        waiting for it. The run is done when ``Memory.wait`` returns."""
        ...

    def drop(self, held: Module | Recording) -> None:
        """Free ``held``, kernels that ``load`` returned or a recording that ``record`` returned; it
        may not be run any more. Acquires ``Memory.allocation_lock``, which the caller must not
        hold."""
        ...
