"""Memory of a device: what keeps weights there and what runs networks is written over it alone."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lipwire.engine.device import Device
from lipwire.engine.gpu.memory.sharedexclusivelock import SharedExclusiveLock
from lipwire.engine.gpu.programs import Programs

Bytes = npt.NDArray[np.uint8]


class DeviceOutOfMemory(Exception):
    """There is no room for an allocation in the memory of the device, or in what may be pinned of
    the host's. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of a device's memory: ``size_bytes`` bytes from ``address`` on."""

    address: int
    size_bytes: int


class Memory(Protocol):
    """The memory of one device, and copies to and from it. Thread-safe.

    Copies are put into a stream and are done when ``wait`` returns. Every method raises DeviceLost
    where the device has failed.
    """

    @property
    def device(self) -> Device:
        """The device whose memory this is."""

    @property
    def allocation_lock(self) -> SharedExclusiveLock:
        """The lock of allocations on the device, which no method of this class acquires.

        Whatever allocates on the device holds it shared, and what records kernels there (CUDA
        graphs) holds it exclusively: an allocation during a recording would fail and spoil it.
        """
        ...

    def allocate(self, size_bytes: int) -> Region:
        """Allocate ``size_bytes`` of the device. The caller holds ``allocation_lock`` shared.
        Raises DeviceOutOfMemory where there is no room."""
        ...

    def free(self, region: Region) -> None:
        """Free ``region``, which ``allocate`` returned; nothing may use it any more. The caller
        holds ``allocation_lock`` shared."""
        ...

    def allocate_host(self, size_bytes: int) -> Bytes:
        """Allocate pinned memory of the host, which the device copies from and to at full speed.
        The caller holds ``allocation_lock`` shared.

        Returns (size_bytes,) uint8. Raises DeviceOutOfMemory where no more can be pinned.
        """
        ...

    def free_host(self, block: Bytes) -> None:
        """Free ``block``, which ``allocate_host`` returned; nothing may use it any more. The caller
        holds ``allocation_lock`` shared."""

    def free_bytes(self) -> int:
        """Return how many bytes are free on the device now."""
        ...

    def onnx_problem(self) -> str | None:
        """Return why ONNX Runtime cannot run on the device, in one line; None where it can."""
        ...

    def programs(self) -> Programs | None:
        """Return what runs Lipwire's own kernels on the device, the same each time; it is made by
        the first call. None where this memory was made without kernels: networks then run in ONNX
        Runtime. Raises KernelsUnavailable where there are kernels, and the device or its driver
        cannot run them.
        """
        ...

    def open_stream(self) -> int:
        """Open a stream and return its handle. What is put into a stream is done in that order."""

    def close_stream(self, stream: int) -> None:
        """Close the stream with handle ``stream``, in which nothing may be under way."""

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        """Put into ``stream`` a copy of all of ``source``, a block of pinned memory, to ``address``
        on the device. ``source`` must stay as it is until ``wait`` returns."""

    def download(self, stream: int, target: Bytes, address: int) -> None:
        """Put into ``stream`` a copy from ``address`` on the device that fills ``target``, a block
        of pinned memory; it is done when ``wait`` returns."""

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        """Put into ``stream`` a copy of ``size_bytes`` bytes within the device, from address
        ``source`` to address ``target``."""

    def wait(self, stream: int) -> None:
        """Wait until everything that was put into ``stream`` is done."""
