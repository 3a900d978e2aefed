"""A machine with GPUs, of which only the driver's answers are made up, and servers on it."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tests.support.waiting import WAIT_S

from lipwire.config import InferenceConfig, load_inference_config
from lipwire.domain import Call, Float32Array, UInt8Array
from lipwire.engine import Device, DeviceLost, Engine, Frames, GpuInfo, GpuState, Model
from lipwire.rpc.backends import RemoteBackend
from lipwire.wiring.choosing import ChosenDevice

GIB = 2**30
THREE = (
    GpuInfo(0, "NVIDIA A", 24 * GIB),
    GpuInfo(1, "NVIDIA B", 80 * GIB),
    GpuInfo(2, "NVIDIA C", 80 * GIB),
)
NAMES = ("a", "b", "c", "d")
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

    def load(
        self,
        compiled: Path,
        frames: Frames | None = None,
        *,
        for_gpu: Path | None = None,
        source: Path | None = None,
    ) -> Model:
        self._check_there()
        model = super().load(compiled, frames, for_gpu=for_gpu, source=source)
        if frames is not None:  # who has more of them takes more of this GPU
            vars(model)["weights_bytes"] += frames.frame_count * 100_000
        return model

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
        return self.backend.mouths(name, 0, WINDOWS, call=Call(WAIT_S)).gpu_id

    def held(self) -> Counter[int]:
        return Counter(model.gpu_id for model in self.backend.models())


Serve = Callable[[str], Running]
