"""Memory of a device and of the host that belongs together."""

from lipwire.engine.memory import Bytes, Memory, Region


class Buffers:
    """Regions of a device and pinned blocks of the host's, all given back by ``close``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._regions: list[Region] = []
        self._blocks: list[Bytes] = []

    @property
    def device_bytes(self) -> int:
        return sum(region.size_bytes for region in self._regions)

    @property
    def host_bytes(self) -> int:
        return sum(block.nbytes for block in self._blocks)

    def region(self, size_bytes: int) -> Region:
        """One more of the device. Raises DeviceOutOfMemory."""
        with self._memory.gate.together():
            self._regions.append(self._memory.allocate(size_bytes))
        return self._regions[-1]

    def block(self, size_bytes: int) -> Bytes:
        """One more of the host's. Raises DeviceOutOfMemory."""
        with self._memory.gate.together():
            self._blocks.append(self._memory.allocate_host(size_bytes))
        return self._blocks[-1]

    def close(self) -> None:
        """Nothing may use them any more."""
        with self._memory.gate.together():
            while self._regions:
                self._memory.free(self._regions.pop())
            while self._blocks:
                self._memory.free_host(self._blocks.pop())
