"""Servers over engines that work as on a GPU, in memory of the processor's that runs out and fails
like one's. What the driver says is all that is made up."""

import shutil
import threading
import time
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
WAIT_S = 120.0
"""For what comes in a moment, unless the machine is busy with something else."""
WINDOWS: Float32Array = np.random.default_rng(4).normal(0, 1, (3, 32, 16, 16)).astype(np.float32)


@dataclass
class Gpus:
    """Two GPUs."""

    memories: list[HostMemory] = field(
        default_factory=lambda: [HostMemory(SIZE_BYTES), HostMemory(SIZE_BYTES)]
    )
    tunings: list[Tuning] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

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
        engine = Engine(threads=threads, tuning=tuning, memory=self.memories[device.index])
        self.engines.append(engine)
        return engine


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
def serve(gpus: Gpus, root: Path, tmp_path: Path) -> Iterator[Callable[[str], RemoteBackend]]:
    """Inference servers on both GPUs, with what is said of them under ``gpus``."""
    with ExitStack() as stack:

        def start(keys: str) -> RemoteBackend:
            file = tmp_path / "inference.yaml"
            file.write_text(f"models_root: {root}\ngpus: {{{keys}}}\n")
            here = {"LIPWIRE_SERVER__HOST": "127.0.0.1", "LIPWIRE_SERVER__PORT": "0"}
            server = stack.enter_context(
                open_inference_server(
                    load_inference_config(file, here), tell=lambda heading, facts: None
                )
            )
