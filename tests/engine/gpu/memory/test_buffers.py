import pytest
from tests.support.hostmemory import HostMemory

from lipwire.engine.gpu.memory.buffers import Buffers
from lipwire.engine.gpu.memory.devicememory import Bytes, DeviceOutOfMemory, Region


def test_what_belongs_together_is_given_back_together() -> None:
    memory = HostMemory(300, host_bytes=300)
    buffers = Buffers(memory)
    assert buffers.region(100).size_bytes == 100
    assert buffers.region(50).address != buffers.region(50).address
    assert buffers.block(70).nbytes == 70
    assert (buffers.device_bytes, buffers.host_bytes) == (200, 70)
    with pytest.raises(DeviceOutOfMemory):
        buffers.region(101)
    with pytest.raises(DeviceOutOfMemory):
        buffers.block(231)
    assert (memory.regions, memory.host_blocks) == (3, 1)
    for _ in range(2):
        buffers.close()
        assert (memory.regions, memory.host_blocks) == (0, 0)
        assert (buffers.device_bytes, buffers.host_bytes) == (0, 0)
    assert buffers.region(300).size_bytes == 300
    buffers.close()


def test_nobody_records_meanwhile() -> None:
    class Watched(HostMemory):
        def allocate(self, size_bytes: int) -> Region:
            assert self.allocation_lock._holders == 1
            return super().allocate(size_bytes)

        def free_host(self, block: Bytes) -> None:
            assert self.allocation_lock._holders == 1
            super().free_host(block)

    buffers = Buffers(Watched(100))
    buffers.region(100)
    buffers.block(1)
    buffers.close()
