"""Servers over engines that work as on a GPU, in memory of the processor's that runs out and fails
like one's. What the driver says is all that is made up."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lipwire.config import load_inference_config
from lipwire.domain import Float32Array, Unavailable
from lipwire.engine import Device, Engine, GpuInfo, GpuState, Tuning
from lipwire.engine.memory import DeviceLost, HostMemory
from lipwire.rpc.backends import RemoteBackend, load_network
from lipwire.wiring import devices, networks
from lipwire.wiring.servers import open_inference_server

NAMES = ("a", "b", "c", "d")
SIZE_BYTES = 256 * 2**20
WINDOWS: Float32Array = np.random.default_rng(4).normal(0, 1, (3, 32, 16, 16)).astype(np.float32)


@dataclass
class Gpus:
    """Two GPUs."""

    memories: list[HostMemory] = field(
        default_factory=lambda: [HostMemory(SIZE_BYTES), HostMemory(SIZE_BYTES)]
    )
    tunings: list[Tuning] = field(default_factory=list)

    def gpus(self) -> tuple[GpuInfo, ...]:
        return tuple(GpuInfo(index, "NVIDIA A", SIZE_BYTES) for index in range(2))

    def state(self, index: int) -> GpuState:
        if self.memories[index].lost:
            raise DeviceLost(f"GPU {index} is lost")
        free_bytes = self.memories[index].free_bytes()
        return GpuState(SIZE_BYTES - free_bytes, free_bytes, 0.5)

    def make(
        self, *, threads: int | None = None, device: Device, tuning: Tuning | None = None
    ) -> Engine:
        """Stands in for ``Engine`` of a GPU."""
        assert device.kind == "cuda"
        assert tuning is not None
        self.tunings.append(tuning)
        return Engine(threads=threads, tuning=tuning, memory=self.memories[device.index])


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Gpus:
    gpus = Gpus()
    monkeypatch.setattr(devices, "cuda_problem", lambda device: None)
    monkeypatch.setattr(devices, "open_driver", lambda: gpus)
    monkeypatch.setattr(devices, "Engine", gpus.make)
    monkeypatch.setattr(networks, "CHECK_GPUS_EVERY_S", 0.05)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return gpus


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for seed, name in enumerate(NAMES):
        make_package(folder / name, frames=4, seed=seed)
    return folder


@pytest.fixture(scope="module")
def expected(root: Path) -> dict[str, Any]:
    """The mouths of frames 0 to 2, made by such an engine without a server."""
    with Engine(threads=1, memory=HostMemory(SIZE_BYTES)) as engine:
        found = {}
        for name in NAMES:
            loaded = load_network(engine, root / name)
            crops = loaded.value.crops(0, len(WINDOWS))
            found[name] = engine.infer(loaded.value.model, crops, WINDOWS)
            loaded.close()
    assert len({mouths.tobytes() for mouths in found.values()}) == len(NAMES)
    return found


@pytest.fixture
def backend(gpus: Gpus, root: Path, tmp_path: Path) -> Iterator[RemoteBackend]:
    """An inference server on both GPUs, of which it may use 0.125 GiB each."""
    file = tmp_path / "inference.yaml"
    file.write_text(f"models_root: {root}\ngpus: {{memory_gb_per_gpu: 0.125}}\n")
    here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
    with ExitStack() as stack:
        server = stack.enter_context(
            open_inference_server(
                load_inference_config(file, here), tell=lambda heading, facts: None
            )
        )
        yield stack.enter_context(
            RemoteBackend([f"127.0.0.1:{server.port}"], max_retries=0, timeout_s=60)
        )


def test_networks_are_spread_over_the_gpus_memory(
    gpus: Gpus, backend: RemoteBackend, expected: dict[str, Any]
) -> None:
    for name, index in zip(NAMES, (0, 1, 0, 1), strict=True):
        mouths = backend.mouths(name, 0, WINDOWS)
        assert mouths.gpu_id == index
        np.testing.assert_array_equal(mouths.pixels, expected[name])
    assert all(memory.free_bytes() < SIZE_BYTES for memory in gpus.memories)
    assert [tuning.device_bytes for tuning in gpus.tunings] == [2**27, 2**27]


def test_a_gpu_lost_under_load_costs_no_client_an_error(
    gpus: Gpus, backend: RemoteBackend, expected: dict[str, Any]
) -> None:
    seen: Counter[int] = Counter()
    over = threading.Event()

    def client(number: int) -> None:
        while not over.is_set():
            name = NAMES[number % len(NAMES)]
            number += 1
            mouths = backend.mouths(name, 0, WINDOWS)
            np.testing.assert_array_equal(mouths.pixels, expected[name])
            seen[mouths.gpu_id] += 1

    with ThreadPoolExecutor(6) as threads:
        clients = [threads.submit(client, number) for number in range(6)]
        try:
            wait_until(lambda: min(seen[0], seen[1]) > 5, clients)
            gpus.memories[0].lost = True
            after = seen[1]
            wait_until(lambda: seen[1] > after + 20, clients)
        finally:
            over.set()
        for future in clients:
            future.result(60)
    health = backend.health()
    assert (health.healthy, health.gpu_count) == (True, 1)
    gpus.memories[1].lost = True
    with pytest.raises(Unavailable):
        backend.mouths("a", 0, WINDOWS)
    assert not backend.health().healthy


def wait_until(condition: Callable[[], bool], clients: list[Any]) -> None:
    """Until ``condition``, or one of ``clients`` has failed, whose error is raised."""
    for _ in range(6000):
        if condition():
            return
        for client in clients:
            if client.done():
                client.result()
        threading.Event().wait(0.01)
    pytest.fail("60 s passed")
