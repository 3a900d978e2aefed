"""What each GPU holds, runs and has waiting, at most."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until
from tests.wiring.gpumachine import GIB, WINDOWS, GpuEngine, Machine, Serve

from lipwire.domain import Call, Float32Array, UInt8Array
from lipwire.engine import Model
from lipwire.rpc.generated import inference_pb2
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.wiring import choosing


def test_each_gpu_holds_as_many_networks_as_it_may(machine: Machine, serve: Serve) -> None:
    running = serve("gpus: {count: 2}\ncapacity: {max_models_per_gpu: 1}")
    for name in "bcd":
        running.home(name)
    assert running.held() == {0: 1, 1: 1}
    assert running.backend.health(call=Call(WAIT_S)).max_models == 2
    assert running.told["Model registry"]["Most at a time"] == 2


def test_each_gpu_has_its_own_workers(
    machine: Machine, serve: Serve, own_threads: Callable[[], list[str]]
) -> None:
    running = serve("gpus: {count: 2}\nserver: {worker_count_per_gpu: 3}")
    names = [name.rpartition("-")[0] for name in own_threads()]
    assert (names.count("lipwire-run-gpu-0"), names.count("lipwire-run-gpu-1")) == (3, 3)
    assert running.told["GPU status"]["Workers per GPU"] == 3


@pytest.mark.slow
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
    running.backend.mouths("b", 0, np.repeat(WINDOWS, 25, axis=0), call=Call(WAIT_S))
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
        until(lambda: sum(call.done() for call in calls) == 2)
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


@pytest.mark.slow
@pytest.mark.parametrize(("limit_mb", "left"), [(16, {"large"}), (20, {"a", "large"})])
def test_the_limit_of_memory_is_for_all_gpus_together(
    machine: Machine, serve: Serve, limit_mb: int, left: set[str]
) -> None:
    running = serve(f"gpus: {{count: 2}}\ncapacity: {{max_memory_mb: {limit_mb}}}")
    assert [running.home(name) for name in ("a", "large")] == [0, 1]  # 9.2 MB each
    assert {model.model_id for model in running.backend.models()} == left


def test_without_a_gpu_no_more_run_at_a_time_than_there_are_cores(
    serve: Serve, own_threads: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "usable_cores", lambda: 2)
    running = serve("gpus: {enabled: false}\nserver: {worker_count_per_gpu: 8}")
    names = [name.rpartition("-")[0] for name in own_threads()]
    assert names.count("lipwire-run") == 2
    assert str(running.told["GPU status"]["Workers"]).startswith("2 (worker_count_per_gpu is 8")
