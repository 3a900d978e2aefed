"""What the keys about GPUs do; only the driver's answers are made up, networks are real."""

import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from lipwire.avatars import Avatar
from lipwire.config import InferenceConfig, load_compositing_config, load_inference_config
from lipwire.domain import (
    DependencyMissing,
    Float32Array,
    InvalidInput,
    UInt8Array,
    Unavailable,
)
from lipwire.engine import (
    Device,
    DeviceLost,
    Engine,
    Frames,
    GpuInfo,
    GpuState,
    Model,
    NoDriver,
)
from lipwire.rpc.backends import RemoteBackend
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated import inference_pb2
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.wiring import devices, networks
from lipwire.wiring.devices import ChosenDevice, choose_devices
from lipwire.wiring.servers import open_inference_server, open_serve

GIB = 2**30
THREE = (
    GpuInfo(0, "NVIDIA A", 24 * GIB),
    GpuInfo(1, "NVIDIA B", 80 * GIB),
    GpuInfo(2, "NVIDIA C", 80 * GIB),
)
NAMES = ("a", "b", "c", "d")
WAIT_S = 120.0
"""For what comes in a moment, unless the machine is busy with something else."""
HERE = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
WINDOWS: Float32Array = np.random.default_rng(4).normal(0, 1, (2, 32, 16, 16)).astype(np.float32)


@dataclass
class Driver:
    """Three GPUs and how they do."""

    there: tuple[GpuInfo, ...] = THREE
    gone: set[int] = field(default_factory=set)

    def gpus(self) -> tuple[GpuInfo, ...]:
        return self.there

    def state(self, index: int) -> GpuState:
        if index in self.gone:
            raise DeviceLost(f"GPU {index} is lost")
        return GpuState(512 * 2**20, GIB, 0.25)


class GpuEngine(Engine):
    """Computes on the processor, for as long as the driver has its GPU."""

    def __init__(self, driver: Driver, device: Device) -> None:
        super().__init__(threads=1)
        self.driver = driver
        self.gpu = device

    def load(self, compiled: Path, frames: Frames | None = None) -> Model:
        self._check_there()
        return super().load(compiled, frames)

    def infer(self, model: Model, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        self._check_there()
        mouths = super().infer(model, crops, windows)
        self._check_there()
        return mouths

    def _check_there(self) -> None:
        if self.gpu.index in self.driver.gone:
            raise DeviceLost(f"{self.gpu}: CUDA failure 719: unspecified launch failure")


@dataclass
class Machine:
    """What a server finds, and what it made of it."""

    driver: Driver = field(default_factory=Driver)
    problem: str | None = None
    engines: list[tuple[str, int | None]] = field(default_factory=list)
    """Device and memory limit of each engine made."""

    def make_engine(self, chosen: ChosenDevice) -> Engine:
        self.engines.append((str(chosen.device), chosen.memory_bytes))
        return GpuEngine(self.driver, chosen.device)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with CUDA and three GPUs."""
    machine = Machine()
    monkeypatch.setattr(devices, "cuda_problem", lambda device: machine.problem)
    monkeypatch.setattr(devices, "open_driver", lambda: machine.driver)
    monkeypatch.setattr(networks, "CHECK_GPUS_EVERY_S", 0.05)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # else the servers set it for good
    return machine


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    """Avatars a, b, c and d, of which a is larger than the others together, and one as large."""
    folder = tmp_path_factory.mktemp("root")
    for seed, name in enumerate((*NAMES, "large")):
        large = {"frames": 24, "size": (640, 480)} if name in ("a", "large") else {"frames": 4}
        make_package(folder / name, seed=seed, **large)
    return folder


def config(yaml: str, folder: Path, root: Path | None = None) -> InferenceConfig:
    file = folder / "inference.yaml"
    file.write_text((f"models_root: {root}\n" if root else "") + yaml + "\n")
    return load_inference_config(file, HERE)


@dataclass
class Running:
    """An inference server and a connection to it."""

    backend: RemoteBackend
    port: int
    told: dict[str, Mapping[str, object]]

    def home(self, name: str) -> int:
        return self.backend.mouths(name, 0, WINDOWS, timeout_s=WAIT_S).gpu_id

    def held(self) -> Counter[int]:
        return Counter(model.gpu_id for model in self.backend.models())


@pytest.fixture
def serve(machine: Machine, root: Path, tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    with ExitStack() as stack:

        def start(yaml: str = "") -> Running:
            told: dict[str, Mapping[str, object]] = {}
            server = stack.enter_context(
                open_inference_server(
                    config(yaml, tmp_path, root),
                    tell=told.__setitem__,
                    make_engine=machine.make_engine,
                )
            )
            backend = stack.enter_context(
                RemoteBackend([f"127.0.0.1:{server.port}"], timeout_s=WAIT_S)
            )
            return Running(backend, server.port, told)

        yield start


Serve = Callable[[str], Running]


# -- gpus.enabled and onnx.use_cuda ----------------------------------------------------------------


@pytest.mark.parametrize("yaml", ["gpus: {enabled: false}", "onnx: {use_cuda: false}"])
def test_gpus_that_are_not_wanted_are_not_even_looked_for(
    machine: Machine, serve: Serve, yaml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touch(*_: Any) -> Any:
        raise AssertionError("CUDA was touched")

    monkeypatch.setattr(devices, "cuda_problem", touch)
    monkeypatch.setattr(devices, "open_driver", touch)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)  # of another test
    running = serve(yaml)
    assert machine.engines == [("cpu", None)]
    assert running.backend.health(timeout_s=WAIT_S).gpu_count == 0
    assert running.told["GPU status"]["GPU"] == "none, networks run on the processor"
    assert "pynvml" not in sys.modules


def test_gpus_are_used_where_there_are_any(machine: Machine, serve: Serve) -> None:
    running = serve("")
    assert machine.engines == [("cuda:0", None), ("cuda:1", None), ("cuda:2", None)]
    health = running.backend.health(timeout_s=WAIT_S)
    assert (health.healthy, health.gpu_count, health.max_models) == (True, 3, 3000)
    facts = running.told["GPU status"]
    assert facts["GPU 0"] == "NVIDIA A, 0 models, 512 MB used / 24576 MB total"
    assert facts["GPU 2"] == "NVIDIA C, 0 models, 512 MB used / 81920 MB total"


@pytest.mark.parametrize("why", ["no CUDA", "no GPU"])
def test_without_cuda_the_processor_is_used_and_that_is_said_once(
    machine: Machine, serve: Serve, caplog: pytest.LogCaptureFixture, why: str
) -> None:
    if why == "no CUDA":
        machine.problem = "libcudnn.so.9 does not load"
    else:
        machine.driver.there = ()
    running = serve("onnx: {use_cuda: true}")
    assert machine.engines == [("cpu", None)]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "NOT AVAILABLE: " in warnings[0]
    assert ("libcudnn.so.9" if why == "no CUDA" else "no GPU") in warnings[0]
    assert "NOT AVAILABLE" in str(running.told["GPU status"]["CUDA"])
    assert running.home("b") == 0


@pytest.mark.parametrize(
    ("yaml", "wanted"),
    [
        ("", ["cuda:0", "cuda:1", "cuda:2"]),
        ("gpus: {kernels: false}", ["cpu"]),
        ("onnx: {use_cuda: strict}", []),
    ],
)
def test_where_onnx_runtime_has_no_cuda_kernels_of_our_own_are_enough(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    yaml: str,
    wanted: list[str],
) -> None:
    machine.problem = "ONNX Runtime is built without CUDA here"
    monkeypatch.setattr(devices, "kernels_problem", lambda device: None)
    if not wanted:
        with pytest.raises(DependencyMissing, match="built without CUDA"):
            choose_devices(config(yaml, tmp_path))
        return
    chosen = choose_devices(config(yaml, tmp_path))
    assert [str(device.device) for device in chosen.devices] == wanted


def test_without_cuda_a_strict_server_does_not_start(machine: Machine, serve: Serve) -> None:
    machine.problem = "libcudnn.so.9 does not load"
    with pytest.raises(
        DependencyMissing, match=r"onnx\.use_cuda is strict, .*libcudnn\.so\.9 does not load"
    ):
        serve("onnx: {use_cuda: strict}")
    assert machine.engines == []


def test_a_driver_that_does_not_answer_leaves_cuda_with_what_was_asked_for(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "open_driver", lambda: NoDriver("nvidia-ml-py is not installed"))
    chosen = choose_devices(config("", tmp_path))
    assert [device.index for device in chosen.devices] == [0]
    assert chosen.facts["GPU 0"] == "a GPU, 0 models, memory not known"
    assert chosen.facts["Names and memory"] == "not known: nvidia-ml-py is not installed"
    two = choose_devices(config("gpus: {count: 2}\nonnx: {cuda_device_id: 3}", tmp_path))
    assert [str(device.device) for device in two.devices] == ["cuda:3", "cuda:4"]


def test_gpus_are_numbered_as_the_driver_numbers_them(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def cuda_problem(device: Device) -> None:
        seen.append(os.environ.get("CUDA_DEVICE_ORDER"))

    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(devices, "cuda_problem", cuda_problem)
    choose_devices(config("", tmp_path))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    choose_devices(config("", tmp_path))
    assert seen == ["PCI_BUS_ID", "FASTEST_FIRST"], "before CUDA starts, and never over the user's"


# -- gpus.count and onnx.cuda_device_id ------------------------------------------------------------


@pytest.mark.parametrize(
    ("yaml", "used"),
    [
        ("gpus: {count: auto}", ["cuda:0", "cuda:1", "cuda:2"]),
        ("gpus: {count: 1}", ["cuda:0"]),
        ("gpus: {count: 2}", ["cuda:0", "cuda:1"]),
        ("onnx: {cuda_device_id: 1}", ["cuda:1", "cuda:2"]),
        ("gpus: {count: 1}\nonnx: {cuda_device_id: 2}", ["cuda:2"]),
    ],
)
def test_as_many_gpus_as_asked_for_from_the_first_on(
    machine: Machine, serve: Serve, yaml: str, used: list[str]
) -> None:
    running = serve(yaml)
    assert [device for device, _ in machine.engines] == used
    assert running.backend.health(timeout_s=WAIT_S).gpu_count == len(used)
    # The number in answers is the GPU's own.
    assert f"cuda:{running.home('b')}" == used[0]
    assert [f"cuda:{model.gpu_id}" for model in running.backend.models()] == used[:1]


def test_more_gpus_than_there_are_is_said(
    machine: Machine, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve("gpus: {count: 4}\nonnx: {cuda_device_id: 1}")
    assert "gpus.count is 4, there are 2 from GPU 1 on: networks run on 2" in caplog.text
    assert running.backend.health(timeout_s=WAIT_S).gpu_count == 2
    with pytest.raises(DependencyMissing, match=r"strict, but gpus\.count is 4, there are 3$"):
        serve("gpus: {count: 4}\nonnx: {use_cuda: strict}")


def test_only_gpus_that_are_asked_for_are_started(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def cuda_problem(device: Device) -> None:
        tried.append(str(device))

    monkeypatch.setattr(devices, "cuda_problem", cuda_problem)
    choose_devices(config("onnx: {cuda_device_id: 1}", tmp_path))
    assert tried == ["cuda:1"]


def test_a_first_gpu_that_fails_is_not_the_end_of_the_others(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = {"cuda:0": "CUDA does not start on cuda:0: uncorrectable ECC error"}
    monkeypatch.setattr(devices, "cuda_problem", lambda device: problems.get(str(device)))
    chosen = choose_devices(config("onnx: {use_cuda: true}", tmp_path))
    assert [str(device.device) for device in chosen.devices] == ["cuda:0", "cuda:1", "cuda:2"]
    problems |= {f"cuda:{index}": "CUDA does not start" for index in (1, 2)}
    chosen = choose_devices(config("onnx: {use_cuda: true}", tmp_path))
    assert [str(device.device) for device in chosen.devices] == ["cpu"]


def test_a_first_gpu_that_is_none_is_an_error_though_it_does_not_start(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = {"cuda:7": "CUDA does not start on cuda:7: invalid device ordinal"}
    monkeypatch.setattr(devices, "cuda_problem", lambda device: problems.get(str(device)))
    with pytest.raises(InvalidInput, match=r"cuda_device_id is 7; the GPUs here are 0 \(NVIDIA A"):
        choose_devices(config("onnx: {cuda_device_id: 7}", tmp_path))


def test_a_first_gpu_that_is_none_is_an_error(machine: Machine, serve: Serve) -> None:
    with pytest.raises(InvalidInput, match=r"cuda_device_id is 7; the GPUs here are 0 \(NVIDIA A"):
        serve("onnx: {cuda_device_id: 7}")


# -- gpus.assignment_strategy ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "homes"), [("round-robin", [0, 1, 0, 1]), ("least-loaded", [0, 1, 1, 1])]
)
def test_the_strategy_decides_where_avatars_go(
    machine: Machine, serve: Serve, strategy: str, homes: list[int]
) -> None:
    running = serve(f"gpus: {{count: 2, assignment_strategy: {strategy}}}")
    assert [running.home(name) for name in NAMES] == homes  # a is larger than the others together
    assert [running.home(name) for name in NAMES] == homes
    assert running.told["GPU status"]["Avatars are assigned"] == strategy


# -- per device ------------------------------------------------------------------------------------


def test_each_gpu_holds_as_many_networks_as_it_may(machine: Machine, serve: Serve) -> None:
    running = serve("gpus: {count: 2}\ncapacity: {max_models_per_gpu: 1}")
    for name in "bcd":
        running.home(name)
    assert running.held() == {0: 1, 1: 1}
    assert running.backend.health(timeout_s=WAIT_S).max_models == 2
    assert running.told["Model registry"]["Most at a time"] == 2


def test_each_gpu_has_its_own_workers(
    machine: Machine, serve: Serve, own_threads: Callable[[], list[str]]
) -> None:
    running = serve("gpus: {count: 2}\nserver: {worker_count_per_gpu: 3}")
    names = [name.rpartition("-")[0] for name in own_threads()]
    assert (names.count("lipwire-run-gpu-0"), names.count("lipwire-run-gpu-1")) == (3, 3)
    assert running.told["GPU status"]["Workers per GPU"] == 3


def test_a_gpu_gets_batches_whole(
    machine: Machine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    infer = GpuEngine.infer

    def counted(
        self: GpuEngine, model: Model, crops: UInt8Array, windows: Float32Array
    ) -> UInt8Array:
        sizes.append(len(crops))
        return infer(self, model, crops, windows)

    monkeypatch.setattr(GpuEngine, "infer", counted)
    running = serve("server: {worker_count_per_gpu: 8}")
    running.backend.mouths("b", 0, np.repeat(WINDOWS, 25, axis=0), timeout_s=WAIT_S)
    assert sizes == [50]


def test_each_gpu_has_its_own_queue(
    machine: Machine, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    running_on: Counter[int] = Counter()
    started = threading.Semaphore(0)
    infer = GpuEngine.infer

    def slow(self: GpuEngine, model: Model, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        running_on[self.gpu.index] += 1
        started.release()
        assert gate.wait(WAIT_S)
        return infer(self, model, crops, windows)

    server = serve("gpus: {count: 2}\nserver: {worker_count_per_gpu: 1, queue_size: 2}")
    assert [server.home(name) for name in "bc"] == [0, 1]
    monkeypatch.setattr(GpuEngine, "infer", slow)
    with InferenceClient(server.port) as client, ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(client.infer, name) for name in "bc"]
        assert started.acquire(timeout=WAIT_S)
        assert started.acquire(timeout=WAIT_S)
        # One of each device is run; two wait, and one of three more is refused.
        calls += [threads.submit(client.infer, name) for name in "bbbccc"]
        wait_until(lambda: sum(call.done() for call in calls) == 2, [])
        gate.set()
        answers = Counter(call.result(WAIT_S) for call in calls)
    assert running_on == {0: 2, 1: 2}, "requests of one avatar that wait are run together"
    assert answers == {grpc.StatusCode.OK: 6, grpc.StatusCode.RESOURCE_EXHAUSTED: 2}


class InferenceClient(ExitStack):
    """Asks one server without retries, and gives the status."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._stub = InferenceServiceStub(
            self.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
        )

    def infer(self, name: str) -> Any:
        request = inference_pb2.InferBatchRequest(
            model_id=name, audio_features=WINDOWS[:1].tobytes(), batch_size=1
        )
        try:
            assert self._stub.InferBatch(request, timeout=WAIT_S).success
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("yaml", "limits"),
    [
        ("gpus: {memory_gb_per_gpu: 30}", [24, 30, 30]),
        ("gpus: {memory_gb_per_gpu: 0.5, count: 1}", [0.5]),
        ("gpus: {memory_gb_per_gpu: 10, count: 1}\nserver: {workers: 2}", [5]),
        ("gpus: {count: 1}\nserver: {workers: 2}", [0.375]),  # of 1 GiB that is free
    ],
)
def test_the_memory_of_a_gpu_is_limited(
    machine: Machine, serve: Serve, yaml: str, limits: list[float]
) -> None:
    serve(yaml)
    assert [limit for _, limit in machine.engines] == [int(gib * GIB) for gib in limits]


def test_the_limit_of_memory_is_for_all_gpus_together(machine: Machine, serve: Serve) -> None:
    running = serve("gpus: {count: 2}\ncapacity: {max_memory_mb: 16}")
    assert [running.home(name) for name in ("a", "b", "large")] == [0, 1, 0]
    assert {model.model_id for model in running.backend.models()} == {"b", "large"}
    held = running.backend.load("a").memory_bytes
    assert held < 8 * 2**20 < 2 * held < 16 * 2**20, "two would fit, were it all for one GPU"


def test_without_a_gpu_no_more_run_at_a_time_than_there_are_cores(
    serve: Serve, own_threads: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    running = serve("gpus: {enabled: false}\nserver: {worker_count_per_gpu: 8}")
    names = [name.rpartition("-")[0] for name in own_threads()]
    assert names.count("lipwire-run") == 2
    assert str(running.told["GPU status"]["Workers"]).startswith("2 (worker_count_per_gpu is 8")


# -- a lost GPU ------------------------------------------------------------------------------------


def test_a_gpu_lost_under_load_costs_no_client_an_error(
    machine: Machine, root: Path, tmp_path: Path
) -> None:
    with Engine(threads=1) as engine:
        expected = {}
        for name in NAMES:
            with Avatar.open(root / name, parts=frozenset({"jpeg"})) as avatar:
                model = engine.load(avatar.model_path)
                crops = np.stack([avatar.crop(index) for index in range(2)])
                drawn = engine.infer(model, crops, WINDOWS)
                expected[name] = tuple(avatar.jpeg(i, mouth) for i, mouth in enumerate(drawn))
    assert len(set(expected.values())) == len(NAMES)
    (tmp_path / "c.yaml").write_text(f"models_root: {root}\n")
    compositing = load_compositing_config(tmp_path / "c.yaml", HERE)
    inference = config("gpus: {count: 2}", tmp_path)
    seen: Counter[int] = Counter()
    over = threading.Event()
    moved = threading.Event()
    with open_serve(
        compositing,
        inference,
        tell=lambda heading, facts: None,
        make_engine=machine.make_engine,
    ) as server:

        def client(number: int) -> None:
            with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = CompositingServiceStub(channel)  # which tries nothing twice
                while not over.is_set():
                    name = NAMES[number % len(NAMES)]
                    number += 1
                    answer = stub.InferBatchComposite(batch(name), timeout=WAIT_S)
                    assert answer.success, answer.error
                    assert tuple(answer.composited_frames) == expected[name]
                    seen[answer.gpu_id] += 1
                    if machine.driver.gone and answer.gpu_id == 1:
                        moved.set()

        with ThreadPoolExecutor(6) as threads:
            clients = [threads.submit(client, number) for number in range(6)]
            try:
                wait_until(lambda: min(seen[0], seen[1]) > 10, clients)
                machine.driver.gone = {0}
                wait_until(moved.is_set, clients)
                after = seen[1]
                wait_until(lambda: seen[1] > after + 20, clients)
            finally:
                over.set()
            for future in clients:
                future.result(WAIT_S)
        with CompositingConnection(f"127.0.0.1:{server.port}") as connection:
            health = connection.health()
            assert (health.healthy, health.inference_server_healthy) == (True, True)
            machine.driver.gone = {0, 1}
            wait_until(lambda: not connection.health().healthy, [])
            with pytest.raises(Unavailable):
                connection.composite(batch("a"), WAIT_S)


def batch(name: str) -> CompositeBatchRequest:
    return CompositeBatchRequest(model_id=name, audio_features=WINDOWS.tobytes(), batch_size=2)


def test_a_gpu_that_does_not_work_from_the_start_is_left_out(
    machine: Machine,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def make_engine(chosen: ChosenDevice) -> Engine:
        if chosen.index in machine.driver.gone:
            raise DeviceLost(f"{chosen.device} has failed: cuInit says system not ready (802)")
        return GpuEngine(machine.driver, chosen.device)

    monkeypatch.setattr(machine, "make_engine", make_engine)
    monkeypatch.setattr(machine.driver, "state", lambda index: GpuState(0, 0, 0.0))
    machine.driver.gone = {0}
    running = serve("gpus: {count: 2}")
    assert "GPU 0 cannot be used: cuda:0 has failed" in caplog.text
    assert str(running.told["GPU status"]["GPU 0"]).startswith("CANNOT BE USED: cuda:0")
    assert running.backend.health(timeout_s=WAIT_S).gpu_count == 1
    assert [running.home(name) for name in "bc"] == [1, 1]
    with pytest.raises(DeviceLost, match="cuda:0 has failed"):
        serve("gpus: {count: 2}\nonnx: {use_cuda: strict}")
    machine.driver.gone = {0, 1}
    with pytest.raises(DeviceLost, match="cuda:1 has failed"):
        serve("gpus: {count: 2}")


def test_health_over_the_wire_tells_of_a_lost_gpu(machine: Machine, serve: Serve) -> None:
    running = serve("gpus: {count: 2}")
    with grpc.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        stub = InferenceServiceStub(channel)
        machine.driver.gone = {1}
        wait_until(lambda: stub.Health(inference_pb2.HealthRequest()).gpu_count == 1, [])
        health = stub.Health(inference_pb2.HealthRequest())
        assert (health.healthy, health.detail) == (True, "GPU 1 is out: GPU 1 is lost")
        machine.driver.gone = {0, 1}
        wait_until(lambda: not stub.Health(inference_pb2.HealthRequest()).healthy, [])


def wait_until(condition: Callable[[], bool], clients: list[Any]) -> None:
    """Until ``condition``, or one of ``clients`` has failed, whose error is raised."""
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        if condition():
            return
        for client in clients:
            if client.done():
                client.result()
        time.sleep(0.01)
    pytest.fail(f"{WAIT_S} s passed")
