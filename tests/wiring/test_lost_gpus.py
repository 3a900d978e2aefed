"""A GPU that stops working, or never did: the others go on."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.support.waiting import WAIT_S, until
from tests.wiring.gpumachine import (
    HERE,
    NAMES,
    WINDOWS,
    GpuEngine,
    Machine,
    Serve,
    config,
)

from lipwire.avatars import Avatar
from lipwire.config import load_compositing_config
from lipwire.domain import Call, Unavailable
from lipwire.engine import DeviceLost, Engine, GpuState
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.generated import inference_pb2
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.compositing_pb2_grpc import CompositingServiceStub
from lipwire.rpc.generated.inference_pb2_grpc import InferenceServiceStub
from lipwire.wiring.choosing import ChosenDevice
from lipwire.wiring.servers import open_serve


@pytest.mark.slow
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
                until(lambda: min(seen[0], seen[1]) > 10, futures=clients)
                machine.driver.gone = {0}
                until(moved.is_set, futures=clients)
                after = seen[1]
                until(lambda: seen[1] > after + 20, futures=clients)
            finally:
                over.set()
            for future in clients:
                future.result(WAIT_S)
        with CompositingConnection(f"127.0.0.1:{server.port}") as connection:
            health = connection.health()
            assert (health.healthy, health.inference_server_healthy) == (True, True)
            machine.driver.gone = {0, 1}
            until(lambda: not connection.health().healthy)
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
    assert running.backend.health(call=Call(WAIT_S)).gpu_count == 1
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
        until(lambda: stub.Health(inference_pb2.HealthRequest()).gpu_count == 1)
        health = stub.Health(inference_pb2.HealthRequest())
        assert (health.healthy, health.detail) == (True, "GPU 1 is out: GPU 1 is lost")
        machine.driver.gone = {0, 1}
        until(lambda: not stub.Health(inference_pb2.HealthRequest()).healthy)


def test_gpus_that_are_left_hold_no_more_than_before(machine: Machine, serve: Serve) -> None:
    running = serve("gpus: {count: 2}\ncapacity: {max_models_per_gpu: 1}")
    assert [running.home(name) for name in "bc"] == [0, 1]
    machine.driver.gone = {1}
    until(lambda: running.backend.health(call=Call(WAIT_S)).max_models == 1)

    def only_the_last_is_held() -> bool:
        running.backend.unload("d")
        return running.home("d") == 0 and running.held() == {0: 1}

    until(only_the_last_is_held)  # the limit is lowered in a moment
