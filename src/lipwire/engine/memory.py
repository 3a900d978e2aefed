"""Memory of a device, and a stand-in for it made of the processor's.

What keeps weights on a GPU (``residency``) and what runs networks there (``lanes``) is written over
``Memory`` alone. ``CudaMemory`` is the real one (``cuda``); ``HostMemory`` has an end too, runs out
like a GPU, and shows a use after freeing as NaN.
"""

import bisect
import ctypes
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lipwire.domain import Unavailable
from lipwire.engine.devices import CPU, Device
from lipwire.engine.programs import Programs

Bytes = npt.NDArray[np.uint8]

_POISON: Final = 0xFF
"""Four of it are a NaN in float32, two in float16."""
_ALIGNMENT_BYTES: Final = 256
"""As cuMemAlloc aligns."""


class DeviceOutOfMemory(Exception):
    """The device, or what may be pinned of the host's memory, has no room; nothing was changed."""


class DeviceLost(Unavailable):
    """The device has failed, and is of no use to this process any more."""


@dataclass(frozen=True, slots=True)
class Region:
    """A piece of a device's memory."""

    address: int
    size_bytes: int


class Gate:
    """Many pass together, or one alone. While one waits to be alone nobody else goes in.

    A GPU's work is recorded (CUDA graphs) while no other thread allocates anything: such a call
    fails, and spoils the recording.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._alone and not self._inside)
            finally:
                self._waiting -= 1
                self._changed.notify_all()
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class Memory(Protocol):
    """Thread-safe. Copies are put into a stream and are done when ``wait`` returns.

    Everything raises DeviceLost where the device has failed.
    """

    @property
    def device(self) -> Device: ...

    @property
    def gate(self) -> Gate:
        """To be passed by whatever allocates on the device. Not held by these methods."""
        ...

    def allocate(self, size_bytes: int) -> Region:
        """Raises DeviceOutOfMemory."""
        ...

    def free(self, region: Region) -> None:
        """Nothing may use ``region`` any more."""
        ...

    def allocate_host(self, size_bytes: int) -> Bytes:
        """Memory of the host that the device copies from and to at full speed. Raises
        DeviceOutOfMemory."""
        ...

    def free_host(self, block: Bytes) -> None: ...

    def free_bytes(self) -> int:
        """What is left on the device now."""
        ...

    def onnx_problem(self) -> str | None:
        """Why ONNX Runtime cannot run there, in one line; None where it can."""
        ...

    def programs(self) -> Programs | None:
        """What runs kernels of our own there; None where there is no such thing. Raises
        KernelsUnavailable where there should be."""
        ...

    def open_stream(self) -> int: ...

    def close_stream(self, stream: int) -> None: ...

    def upload(self, stream: int, address: int, source: Bytes) -> None: ...

    def download(self, stream: int, target: Bytes, address: int) -> None: ...

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None: ...

    def wait(self, stream: int) -> None: ...


class HostMemory:
    """``Memory`` in NumPy arrays. Copies are done at once, in whichever stream."""

    def __init__(
        self,
        size_bytes: int,
        *,
        host_bytes: int = 1 << 40,
        device: Device = CPU,
        programs: Programs | None = None,
        onnx_problem: str | None = None,
    ) -> None:
        """A device of ``size_bytes``, beside which ``host_bytes`` can be pinned."""
        self.device: Final = device
        self._programs = programs
        self._onnx_problem = onnx_problem
        self.gate: Final = Gate()
        self._lock = threading.Lock()
        self._left_bytes = size_bytes
        self._host_left_bytes = host_bytes
        self._arrays: dict[int, Bytes] = {}
        self._addresses: list[int] = []
        """Of all regions, rising."""
        self._pinned: dict[int, int] = {}
        self._streams = 0
        self.lost = False
        """Set it, and everything fails as on a GPU that fell off its bus."""
        self._freed: deque[Bytes] = deque(maxlen=16)
        """Kept, so that a use after freeing finds poison and not another thing's memory."""

    def allocate(self, size_bytes: int) -> Region:
        self._check()
        with self._lock:
            if size_bytes > self._left_bytes:
                raise DeviceOutOfMemory(f"{size_bytes} bytes, free are {self._left_bytes}")
            self._left_bytes -= size_bytes
            array = np.full(size_bytes + _ALIGNMENT_BYTES, _POISON, np.uint8)
            address = array.ctypes.data + -array.ctypes.data % _ALIGNMENT_BYTES
            self._arrays[address] = array
            bisect.insort(self._addresses, address)
        return Region(address, size_bytes)

    def free(self, region: Region) -> None:
        with self._lock:
            array = self._arrays.pop(region.address)
            self._addresses.remove(region.address)
            array[:] = _POISON
            self._freed.append(array)
            self._left_bytes += region.size_bytes

    def allocate_host(self, size_bytes: int) -> Bytes:
        with self._lock:
            if size_bytes > self._host_left_bytes:
                raise DeviceOutOfMemory(f"{size_bytes} bytes of the host's")
            self._host_left_bytes -= size_bytes
            block = np.full(size_bytes, _POISON, np.uint8)
            self._pinned[block.ctypes.data] = size_bytes
        return block

    def free_host(self, block: Bytes) -> None:
        with self._lock:
            self._host_left_bytes += self._pinned.pop(block.ctypes.data)
            block[:] = _POISON

    def free_bytes(self) -> int:
        return self._left_bytes

    def onnx_problem(self) -> str | None:
        return self._onnx_problem

    def programs(self) -> Programs | None:
        return self._programs

    def open_stream(self) -> int:
        with self._lock:
            self._streams += 1
            return self._streams

    def close_stream(self, stream: int) -> None:
        pass

    def upload(self, stream: int, address: int, source: Bytes) -> None:
        ctypes.memmove(self._checked(address, source.nbytes), source.ctypes.data, source.nbytes)

    def download(self, stream: int, target: Bytes, address: int) -> None:
        ctypes.memmove(target.ctypes.data, self._checked(address, target.nbytes), target.nbytes)

    def copy(self, stream: int, target: int, source: int, size_bytes: int) -> None:
        ctypes.memmove(
            self._checked(target, size_bytes), self._checked(source, size_bytes), size_bytes
        )

    def wait(self, stream: int) -> None:
        self._check()

    @property
    def regions(self) -> int:
        """How many are allocated."""
        return len(self._arrays)

    @property
    def host_blocks(self) -> int:
        return len(self._pinned)

    def _check(self) -> None:
        if self.lost:
            raise DeviceLost(f"{self.device} has failed: it was taken away")

    def _checked(self, address: int, size_bytes: int) -> int:
        self._check()
        with self._lock:
            behind = bisect.bisect_right(self._addresses, address)
            base = self._addresses[behind - 1] if behind else 0
            end = base + self._arrays[base].size - _ALIGNMENT_BYTES if behind else 0
        if address + size_bytes > end:
            raise AssertionError(f"{size_bytes} bytes at {address:#x} are not allocated")
        return address
