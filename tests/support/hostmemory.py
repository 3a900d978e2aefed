"""A device's memory made of the processor's.

It has an end, runs out like a GPU's, and shows a use after freeing as NaN.
"""

import bisect
import ctypes
import threading
from collections import deque
from typing import Final

import numpy as np

from lipwire.engine.device import CPU, Device, DeviceLost
from lipwire.engine.gpu.memory.devicememory import Bytes, DeviceOutOfMemory, Region
from lipwire.engine.gpu.memory.sharedexclusivelock import SharedExclusiveLock
from lipwire.engine.gpu.programs import Programs

_POISON: Final = 0xFF
"""Four of it are a NaN in float32, two in float16."""
_ALIGNMENT_BYTES: Final = 256
"""As cuMemAlloc aligns."""


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
        self.allocation_lock: Final = SharedExclusiveLock()
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
