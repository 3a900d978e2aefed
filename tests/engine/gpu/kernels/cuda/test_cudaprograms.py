"""Kernels are loaded, recorded and run through CUDA's driver, here a stand-in that takes note.

What a GPU makes of them is tested where there is one.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.cudadriver import Declared, Driver, Ran

from lipwire.engine import Device
from lipwire.engine.device import DeviceLost
from lipwire.engine.gpu.kernels.cuda import cudaprograms
from lipwire.engine.gpu.kernels.cuda.cubins import Cubins
from lipwire.engine.gpu.kernels.cuda.cudaprograms import CudaPrograms, kernels_problem
from lipwire.engine.gpu.memory.cudamemory import CudaMemory
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory
from lipwire.engine.gpu.programs import KernelSource, KernelsUnavailable, Launch, Module, Programs

SOURCE = KernelSource("text", "header", {"first": 1000, "second": 0})
LAUNCHES = (
    Launch("second", (3, 4, 5), 256, 0, bytes(range(24))),
    Launch("first", (7, 1, 1), 128, 512, bytes(range(16))),
)
STREAM = 77


class Made(Cubins):
    """Cubins that say what they were asked for."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.asked: list[tuple[tuple[int, int], int]] = []

    def cubin(self, source: KernelSource, capability: tuple[int, int], newest_major: int) -> bytes:
        self.asked.append((capability, newest_major))
        return f"cubin of {source.text}\0".encode()


@pytest.fixture
def driver() -> Driver:
    made = Driver()
    made.kernels = {"first": 16, "second": 24}
    return made


@pytest.fixture
def cubins() -> Made:
    return Made()


@pytest.fixture
def memory(driver: Driver) -> CudaMemory:
    return CudaMemory(Device.cuda(1), Declared(driver))


@pytest.fixture
def programs(memory: CudaMemory, cubins: Made) -> CudaPrograms:
    return CudaPrograms(memory, cubins)


def test_launches_reach_the_device_in_their_order_each_time_they_are_run(
    programs: Programs, driver: Driver
) -> None:
    module = programs.load(SOURCE)
    recording = programs.record(module, LAUNCHES, STREAM)
    assert driver.ran == []
    programs.run(recording, STREAM)
    programs.run(recording, 78)
    expected = (
        Ran("second", (3, 4, 5), (256, 1, 1), 0, bytes(range(24))),
        Ran("first", (7, 1, 1), (128, 1, 1), 512, bytes(range(16))),
    )
    assert driver.ran == [(stream, ran) for stream in (STREAM, 78) for ran in expected]


@pytest.mark.parametrize(
    ("fails", "capability", "nvrtc", "problem"),
    [
        ({}, 9, object(), None),
        ({}, 9, None, "no NVRTC of CUDA 12 to 13"),
        ({}, 7, object(), "compute capability 7.0"),
        ({"cuDeviceGet": 101}, 9, object(), "has failed: cuDeviceGet"),
    ],
)
def test_whether_kernels_can_run_is_told_in_one_line(
    driver: Driver,
    monkeypatch: pytest.MonkeyPatch,
    fails: dict[str, int],
    capability: int,
    nvrtc: Any,
    problem: str | None,
) -> None:
    driver.fails, driver.attributes[75] = fails, capability
    monkeypatch.setattr(cudaprograms, "CudaMemory", lambda gpu: CudaMemory(gpu, Declared(driver)))
    monkeypatch.setattr(cudaprograms, "Cubins", lambda: Cubins(Path("nowhere"), lambda _: nvrtc))
    told = kernels_problem(Device.cuda(1))
    assert told is None if problem is None else (problem in str(told) and "\n" not in str(told))


def test_kernels_are_compiled_for_the_device_and_its_driver(
    programs: Programs, driver: Driver, cubins: Made
) -> None:
    programs.load(SOURCE)
    assert cubins.asked == [((9, 0), 13)]
    assert list(driver.images.values()) == [b"cubin of text\0"]


def test_what_the_device_has_is_told(programs: Programs, driver: Driver) -> None:
    assert programs.limits.capability == (9, 0)
    assert programs.limits.multiprocessors == 132
    assert programs.limits.shared_bytes == 232448
    asked = [call[1] for call in driver.calls if call[0] == "cuDeviceGetAttribute"]
    assert {device for _, device in asked} == {1}


def test_a_verdict_is_remembered_by_device_driver_and_code(
    programs: Programs, memory: CudaMemory, driver: Driver, cubins: Made
) -> None:
    assert programs.identity == "9-0-132-232448-13000"
    assert programs.load(SOURCE).digest == hashlib.sha256(b"cubin of text\0").hexdigest()
    driver.version = 13010
    assert CudaPrograms(memory, cubins).identity == "9-0-132-232448-13010"


def test_a_device_for_one_process_has_nobody_else_to_try_kernels(
    memory: CudaMemory, driver: Driver, cubins: Made
) -> None:
    driver.attributes[20] = 3
    assert CudaPrograms(memory, cubins).identity is None


def test_kernels_may_take_the_shared_memory_that_their_source_says(
    programs: Programs, driver: Driver
) -> None:
    programs.load(SOURCE)
    set_to = [call[1] for call in driver.calls if call[0] == "cuFuncSetAttribute"]
    assert set_to == [("first", 8, 1000), ("second", 8, 0)]


def test_a_recording_is_on_the_device_before_it_runs(programs: Programs, driver: Driver) -> None:
    programs.record(programs.load(SOURCE), LAUNCHES, STREAM)
    calls = [(name, arguments) for name, arguments, _ in driver.calls]
    assert ("cuGraphUpload", (STREAM,)) in calls


def test_what_is_dropped_is_gone(programs: Programs, driver: Driver) -> None:
    module = programs.load(SOURCE)
    recording = programs.record(module, LAUNCHES, STREAM)
    assert driver.graphs == {}
    programs.drop(recording)
    assert driver.recordings == {}
    assert len(driver.images) == 1
    programs.drop(module)
    assert driver.images == {}


def test_the_gate_is_passed_for_what_allocates_and_not_to_compile(
    memory: CudaMemory, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside: list[str] = []

    class Watching(Made):
        def cubin(self, *arguments: Any) -> bytes:
            inside.append(f"compile {memory.allocation_lock._holders}")
            return super().cubin(*arguments)

    programs = CudaPrograms(memory, Watching())
    call = memory.call

    def watched(name: str, *arguments: object, **options: Any) -> None:
        inside.append(f"{name} {memory.allocation_lock._holders}")
        call(name, *arguments, **options)

    monkeypatch.setattr(memory, "call", watched)
    module = programs.load(SOURCE)
    recording = programs.record(module, LAUNCHES, STREAM)
    programs.drop(recording)
    programs.drop(module)
    assert inside[:2] == ["compile 0", "cuModuleLoadData 1"]
    assert all(each.endswith(" 1") for each in inside[1:])
    assert inside[-2:] == ["cuGraphExecDestroy 1", "cuModuleUnload 1"]
    assert memory.allocation_lock._holders == 0


@pytest.mark.parametrize(("major", "minor"), [(7, 5), (6, 1)])
def test_a_gpu_that_is_too_old_is_not_for_them(
    memory: CudaMemory, driver: Driver, major: int, minor: int
) -> None:
    driver.attributes |= {75: major, 76: minor}
    with pytest.raises(
        KernelsUnavailable,
        match=rf"^cuda:1 has compute capability {major}\.{minor}, the kernels need 8\.0$",
    ):
        CudaPrograms(memory, Made())


def test_a_gpu_with_less_shared_memory_says_so_before_anything_is_compiled(
    memory: CudaMemory, driver: Driver, cubins: Made
) -> None:
    driver.attributes[97] = 999
    with pytest.raises(KernelsUnavailable, match=r"first needs 1000 bytes .* cuda:1 has 999"):
        CudaPrograms(memory, cubins).load(SOURCE)
    assert cubins.asked == []


def change(**fields: Any) -> Launch:
    given: dict[str, Any] = {
        "kernel": "first",
        "grid": (1, 1, 1),
        "threads": 32,
        "shared_bytes": 0,
        "arguments": bytes(16),
    }
    return Launch(**{**given, **fields})


@pytest.mark.parametrize(
    ("launch", "reason"),
    [
        (change(kernel="third"), "there is no kernel 'third'"),
        (change(grid=(0, 1, 1)), "first: the grid is (0, 1, 1)"),
        (change(grid=(1, 65536, 1)), "first: the grid is (1, 65536, 1)"),
        (change(threads=0), "first: 0 threads"),
        (change(threads=1025), "first: 1025 threads, allowed are 1024"),
        (change(shared_bytes=1001), "first: 1001 bytes of shared memory, its source says 1000"),
    ],
)
def test_a_launch_that_cannot_be_is_refused_before_anything_is_recorded(
    programs: Programs, driver: Driver, launch: Launch, reason: str
) -> None:
    module = programs.load(SOURCE)
    with pytest.raises(ValueError, match=re.escape(reason)):
        programs.record(module, [change(), launch], STREAM)
    assert "cuGraphCreate" not in [call[0] for call in driver.calls]


def load(programs: Programs, module: Module) -> None:
    programs.load(SOURCE)


def record(programs: Programs, module: Module) -> None:
    programs.record(module, LAUNCHES, STREAM)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("cuModuleLoadData", load),
        ("cuModuleGetFunction", load),
        ("cuFuncSetAttribute", load),
        ("cuGraphCreate", record),
        ("cuGraphAddKernelNode_v2", record),
        ("cuGraphInstantiateWithFlags", record),
        ("cuGraphUpload", record),
    ],
)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (1, KernelsUnavailable),
        (209, KernelsUnavailable),
        (2, DeviceOutOfMemory),
        (901, RuntimeError),
        (700, DeviceLost),
    ],
)
def test_a_failure_is_told_and_leaves_nothing_behind(
    programs: Programs,
    driver: Driver,
    name: str,
    act: Callable[[Programs, Module], None],
    status: int,
    error: type[Exception],
) -> None:
    module = programs.load(SOURCE)
    driver.fails[name] = status
    with pytest.raises(error, match=name):
        act(programs, module)
    assert len(driver.images) == 1
    assert driver.graphs == driver.recordings == {}
    driver.fails.clear()
    act(programs, module)


def test_the_first_failure_is_told_where_tidying_fails_too(
    programs: Programs, driver: Driver
) -> None:
    module = programs.load(SOURCE)
    driver.fails = {"cuGraphAddKernelNode_v2": 701, "cuGraphDestroy": 901}
    with pytest.raises(KernelsUnavailable, match="cuGraphAddKernelNode_v2"):
        programs.record(module, LAUNCHES, STREAM)
    driver.fails = {"cuFuncSetAttribute": 1, "cuModuleUnload": 700}
    with pytest.raises(KernelsUnavailable, match="cuFuncSetAttribute"):
        programs.load(SOURCE)


def test_a_kernel_that_is_not_in_the_source_is_named_by_the_driver(
    programs: Programs, driver: Driver
) -> None:
    del driver.kernels["second"]
    with pytest.raises(KernelsUnavailable, match=r"cuda:1: cuModuleGetFunction says .*\(500\)"):
        programs.load(SOURCE)
    assert driver.images == {}


def test_a_run_that_fails_means_that_the_device_has(programs: Programs, driver: Driver) -> None:
    recording = programs.record(programs.load(SOURCE), LAUNCHES, STREAM)
    driver.fails["cuGraphLaunch"] = 719
    with pytest.raises(DeviceLost, match="cuGraphLaunch"):
        programs.run(recording, STREAM)
