"""A device's memory: the stand-in runs out like one."""

import numpy as np
import pytest
from tests.support.hostmemory import HostMemory

from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory


def test_it_has_an_end_and_takes_back() -> None:
    memory = HostMemory(1000)
    region = memory.allocate(600)
    with pytest.raises(DeviceOutOfMemory):
        memory.allocate(401)
    assert memory.free_bytes() == 400
    memory.free(region)
    assert memory.allocate(1000).size_bytes == 1000


def test_what_goes_in_comes_out() -> None:
    memory = HostMemory(1 << 20)
    stream = memory.open_stream()
    first, second = memory.allocate(512), memory.allocate(512)
    block = memory.allocate_host(512)
    block[:] = np.arange(512) % 251
    memory.upload(stream, first.address, block)
    memory.copy(stream, second.address, first.address, 512)
    out = np.zeros(512, np.uint8)
    memory.download(stream, out, second.address)
    memory.wait(stream)
    assert (out == block).all()


def test_use_after_freeing_is_found() -> None:
    memory = HostMemory(1 << 20)
    region = memory.allocate(64)
    memory.free(region)
    with pytest.raises(AssertionError, match="not allocated"):
        memory.upload(0, region.address, np.zeros(64, np.uint8))
    with pytest.raises(AssertionError, match="not allocated"):
        memory.upload(0, memory.allocate(32).address, np.zeros(33, np.uint8))


def test_a_lost_device_says_so() -> None:
    memory = HostMemory(1 << 20)
    region = memory.allocate(64)
    memory.lost = True
    for use in (
        lambda: memory.allocate(1),
        lambda: memory.upload(0, region.address, np.zeros(64, np.uint8)),
        lambda: memory.wait(0),
    ):
        with pytest.raises(DeviceLost, match="has failed"):
            use()
