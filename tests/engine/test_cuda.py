"""CUDA's driver is called as it wants to be, and its errors become ours. The driver is a stand-in
whose memory is the processor's."""

import ctypes
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipwire.domain import DependencyMissing
from lipwire.engine import Device, cuda
from lipwire.engine.cuda import CudaMemory
from lipwire.engine.memory import DeviceLost, DeviceOutOfMemory


class Driver:
    """As libcuda.so.1: every function returns a status and writes through its pointers."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, int]] = []
        self.fails: dict[str, int] = {}
        self.arrays: dict[int, Any] = {}

    def _status(self, name: str, *arguments: Any) -> int:
        self.calls.append((name, arguments, threading.get_ident()))
        return self.fails.get(name, 0)

    def _new(self, out: Any, size: int) -> None:
        array = np.zeros(size, np.uint8)
        self.arrays[array.ctypes.data] = array
        out._obj.value = array.ctypes.data

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._status("cuInit", flags)

    def cuDeviceGet(self, out: Any, index: int) -> int:  # noqa: N802
        out._obj.value = index
        return self._status("cuDeviceGet", index) if index < 2 else 101

    def cuDevicePrimaryCtxRetain(self, out: Any, number: int) -> int:  # noqa: N802
        out._obj.value = 4000 + number
        return self._status("cuDevicePrimaryCtxRetain", number)

    def cuCtxSetCurrent(self, context: Any) -> int:  # noqa: N802
        return self._status("cuCtxSetCurrent", context.value)

    def cuMemGetInfo_v2(self, free: Any, whole: Any) -> int:  # noqa: N802
        free._obj.value, whole._obj.value = 123, 456
        return self._status("cuMemGetInfo_v2")

    def cuMemAlloc_v2(self, out: Any, size: int) -> int:  # noqa: N802
        status = self._status("cuMemAlloc_v2", size)
        if not status:
            self._new(out, size)
        return status

    def cuMemFree_v2(self, address: int) -> int:  # noqa: N802
        del self.arrays[address]
        return self._status("cuMemFree_v2", address)

    def cuMemHostAlloc(self, out: Any, size: int, flags: int) -> int:  # noqa: N802
        status = self._status("cuMemHostAlloc", size, flags)
        if not status:
            self._new(out, size)
        return status

    def cuMemFreeHost(self, address: int) -> int:  # noqa: N802
        del self.arrays[address]
        return self._status("cuMemFreeHost", address)

    def cuStreamCreate(self, out: Any, flags: int) -> int:  # noqa: N802
        out._obj.value = 77
        return self._status("cuStreamCreate", flags)

    def cuStreamDestroy_v2(self, stream: int) -> int:  # noqa: N802
        return self._status("cuStreamDestroy_v2", stream)

    def cuStreamSynchronize(self, stream: int) -> int:  # noqa: N802
        return self._status("cuStreamSynchronize", stream)

    def _copy(self, name: str, target: int, source: int, size: int, stream: int) -> int:
        ctypes.memmove(target, source, size)
        return self._status(name, stream)

    def cuMemcpyHtoDAsync_v2(self, *arguments: int) -> int:  # noqa: N802
        return self._copy("cuMemcpyHtoDAsync_v2", *arguments)

    def cuMemcpyDtoHAsync_v2(self, *arguments: int) -> int:  # noqa: N802
        return self._copy("cuMemcpyDtoHAsync_v2", *arguments)

    def cuMemcpyDtoDAsync_v2(self, *arguments: int) -> int:  # noqa: N802
        return self._copy("cuMemcpyDtoDAsync_v2", *arguments)

    def cuGetErrorString(self, status: int, out: Any) -> int:  # noqa: N802
        out._obj.value = {2: b"out of memory", 101: b"invalid device ordinal"}.get(status)
        return 0


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
    monkeypatch.setattr(cuda, "DRIVER", "libcuda-is-not-here.so.1")
    with pytest.raises(DependencyMissing, match="no NVIDIA driver"):
        CudaMemory(Device.cuda(0))


def test_every_function_that_is_called_is_declared(driver: Driver) -> None:
    """An undeclared one would be called with 32-bit addresses."""
    called = set(re.findall(r"\bcu[A-Z]\w+", Path(cuda.__file__).read_text()))
    called -= {"cuCtx", "cuMem", "cuStream"}
    assert called == set(cuda._SIGNATURES)
    assert all(hasattr(driver, name) for name in cuda._SIGNATURES)
