"""CUDA's driver is called as it wants to be, and its errors become ours. The driver is a stand-in
whose memory is the processor's."""

import inspect
import re
import threading

import numpy as np
import pytest
from tests.engine.cudadriver import Driver

from lipwire.domain import DependencyMissing
from lipwire.engine import Device
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.kernels.cuda import cudaprograms
from lipwire.engine.gpu.memory import cudamemory
from lipwire.engine.gpu.memory.cudamemory import CudaMemory, Refused
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory


@pytest.fixture
def driver() -> Driver:
    return Driver()


def test_what_goes_in_comes_out(driver: Driver) -> None:
    memory = CudaMemory(Device.cuda(1), driver)
    stream = memory.open_stream()
    first, second = memory.allocate(64), memory.allocate(64)
    block = memory.allocate_host(64)
    assert block.shape == (64,)
    block[:] = np.arange(64)
    memory.upload(stream, first.address, block)
    memory.copy(stream, second.address, first.address, 64)
    out = np.zeros(64, np.uint8)
    memory.download(stream, out, second.address)
    memory.wait(stream)
    assert (out == np.arange(64)).all()
    assert {c[1][-1] for c in driver.calls if c[0].startswith("cuMemcpy")} == {77}
    memory.free(first)
    memory.free(second)
    memory.free_host(block)
    memory.close_stream(stream)
    assert driver.arrays == {}
    assert memory.free_bytes() == 123


def test_each_call_is_made_with_its_devices_context_current(driver: Driver) -> None:
    """In whichever thread, and whatever another device did there meanwhile."""
    memories = [CudaMemory(Device.cuda(index), driver) for index in (0, 1)]
    regions = [memory.allocate(1) for memory in (*memories, *memories)]

    def free() -> None:
        memories[1].free(regions[1])
        memories[0].free(regions[0])

    thread = threading.Thread(target=free)
    thread.start()
    thread.join()
    current: dict[int, int] = {}
    used = []
    for name, arguments, caller in driver.calls:
        if name == "cuCtxSetCurrent":
            current[caller] = arguments[0]
        elif name in ("cuMemAlloc_v2", "cuMemFree_v2"):
            used.append(current[caller])
    assert used == [4000, 4001, 4000, 4001, 4001, 4000]


def test_a_recording_that_fails_is_no_lost_device(driver: Driver) -> None:
    memory = CudaMemory(Device.cuda(0), driver)
    driver.fails["cuStreamSynchronize"] = 901
    with pytest.raises(RuntimeError, match=r"cuStreamSynchronize says .*901") as caught:
        memory.wait(77)
    assert not isinstance(caught.value, DeviceLost)


@pytest.mark.parametrize("name", ["cuMemAlloc_v2", "cuMemHostAlloc"])
def test_out_of_memory_is_told_apart(driver: Driver, name: str) -> None:
    memory = CudaMemory(Device.cuda(0), driver)
    driver.fails[name] = 2
    allocate = memory.allocate if name == "cuMemAlloc_v2" else memory.allocate_host
    with pytest.raises(DeviceOutOfMemory, match="out of memory"):
        allocate(100)
    driver.fails[name] = 700
    with pytest.raises(DeviceLost, match=r"cuda:0 has failed.*700"):
        allocate(100)


def test_a_gpu_that_is_not_there_is_said_to_be_so(driver: Driver) -> None:
    with pytest.raises(DeviceLost, match=r"cuda:2 has failed.*invalid device ordinal"):
        CudaMemory(Device.cuda(2), driver)


def test_without_a_driver_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cudamemory, "DRIVER", "libcuda-is-not-here.so.1")
    with pytest.raises(DependencyMissing, match="no NVIDIA driver"):
        CudaMemory(Device.cuda(0))


def test_what_the_driver_may_refuse_is_no_lost_device(driver: Driver) -> None:
    memory = CudaMemory(Device.cuda(0), driver)
    driver.fails["cuMemFree_v2"] = 1
    region = memory.allocate(1)
    with pytest.raises(Refused, match=r"cuMemFree_v2 says .*\(1\)"):
        memory.call("cuMemFree_v2", region.address, refusals={1})
    driver.fails["cuStreamDestroy_v2"] = 1
    with pytest.raises(DeviceLost, match=r"cuStreamDestroy_v2 says .*\(1\)"):
        memory.call("cuStreamDestroy_v2", 77, refusals={500})


def test_every_function_that_is_called_is_declared(driver: Driver) -> None:
    """An undeclared one would be called with 32-bit addresses."""
    called: set[str] = set()
    for module in (cudamemory, cudaprograms):
        called |= set(re.findall(r"(?<=[\"._])cu[A-Z]\w+", inspect.getsource(module)))
    assert called == set(cudamemory._SIGNATURES)
    assert all(hasattr(driver, name) for name in cudamemory._SIGNATURES)
