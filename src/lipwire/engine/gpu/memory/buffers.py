"""Memory of a device and of the host that belongs together."""

from lipwire.engine.gpu.memory.devicememory import Bytes, Memory, Region


class Buffers:
    """Allocates regions of a device and blocks of pinned host memory, and frees all of them with
    ``close``."""

    def __init__(self, memory: Memory) -> None:
        """``memory`` is that of the device."""
        self._memory = memory
        self._regions: list[Region] = []
        self._blocks: list[Bytes] = []

    @property
    def device_bytes(self) -> int:
        """How many bytes of the device all regions take together."""
        return sum(region.size_bytes for region in self._regions)

    @property
    def host_bytes(self) -> int:
        """How many bytes of the host's memory all blocks take together."""
        return sum(block.nbytes for block in self._blocks)

    def region(self, size_bytes: int) -> Region:
        """Allocate and return a region of ``size_bytes`` bytes of the device, which ``close``
        frees. Raises DeviceOutOfMemory where there is no room, DeviceLost where the device has
        failed."""
        with self._memory.allocation_lock.shared():
            self._regions.append(self._memory.allocate(size_bytes))
        return self._regions[-1]

    def block(self, size_bytes: int) -> Bytes:
        """Allocate and return a block of pinned host memory, (size_bytes,) uint8, whose content is
        undefined; ``close`` frees it. Raises DeviceOutOfMemory where there is no room, DeviceLost
        where the device has failed."""
        with self._memory.allocation_lock.shared():
            self._blocks.append(self._memory.allocate_host(size_bytes))
        return self._blocks[-1]

    def close(self) -> None:
        """Free all regions and blocks; nothing may use them any more. Raises DeviceLost where the
        device has failed."""
        with self._memory.allocation_lock.shared():
            while self._regions:
                self._memory.free(self._regions.pop())
            while self._blocks:
                self._memory.free_host(self._blocks.pop())
