"""What the parts of ``bench gpu`` stand on: networks, a device, and calls that are timed."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.bench.models import Widths, write_tiny_unet, write_unet
from lipwire.domain import AUDIO_WINDOW_SHAPE, MOUTH_PX, Float32Array, UInt8Array
from lipwire.engine import Device, Engine, Model, Tuning, compile_model, cuda_problem
from lipwire.engine.batching import BATCH_SIZES
from lipwire.engine.devices import CudaOptions
from lipwire.engine.faces import Frames
from lipwire.engine.gpugraphs import Precision
from lipwire.engine.gpustorage import GpuModel, read_gpu_manifest
from lipwire.engine.memory import Memory
from lipwire.engine.storage import read_manifest

KERNELS: Final = "kernels"
ONNX: Final = "ONNX Runtime"
ROADS: Final = (KERNELS, ONNX)
"""What runs a network on a GPU: kernels of our own, or ONNX Runtime."""

Row = dict[str, str | int | float]
"""One line of a table."""

_TOGETHER_S = 200.0
"""A first call opens a session and tries every algorithm of every layer, in all lanes at once."""


@dataclass(slots=True)
class Rig:
    """What parts share: a folder with compiled networks, and where to run them."""

    folder: Path
    device: Device
    memory: Memory | None
    widths: Widths | None
    """None for tiny networks."""
    quick: bool
    end_s: float
    clock_s: Callable[[], float]

    @property
    def options(self) -> CudaOptions:
        """What the part *ways* found quickest, in this process or another of the same folder."""
        try:
            return CudaOptions(**json.loads(self._best.read_text("utf-8")))
        except FileNotFoundError:
            return CudaOptions()

    def prefer(self, options: CudaOptions) -> None:
        """Use ``options`` from here on."""
        self._best.write_text(json.dumps(asdict(options)), "utf-8")

    @property
    def _best(self) -> Path:
        return self.folder / "options.json"

    @property
    def sizes(self) -> tuple[int, ...]:
        return (1, 4) if self.quick else BATCH_SIZES

    @property
    def large(self) -> int:
        """The batch that the targets are named for."""
        return 4 if self.quick else 24

    @property
    def seconds(self) -> float:
        """How long one figure is measured."""
        return 0.05 if self.quick else 0.6

    def time_is_up(self) -> bool:
        return self.clock_s() >= self.end_s

    @property
    def device_of_sessions(self) -> Device:
        return self.device if self.memory is None else self.memory.device

    def source(self, number: int) -> Path:
        path = self.folder / f"{number}.onnx"
        if not path.exists():
            if self.widths is None:
                write_tiny_unet(path, seed=number)
            else:
                write_unet(path, seed=number, widths=self.widths)
        return path

    def compiled(self, number: int) -> Path:
        """Network ``number``, compiled on the first call."""
        path = self.folder / f"compiled-{number}"
        if not path.exists():
            path.mkdir()
            compile_model(self.source(number), path)
        return path

    def engine(self, tuning: Tuning) -> Engine:
        return Engine(threads=1, device=self.device, tuning=tuning, memory=self.memory)

    def onnx_problem(self) -> str | None:
        """Why ONNX Runtime does not run on the device; None where it does."""
        return cuda_problem(self.device) if self.memory is None else self.memory.onnx_problem()

    @contextmanager
    def loaded(
        self, road: str, tuning: Tuning, frames: Frames | None = None
    ) -> Iterator[tuple[Engine, Model]]:
        """An engine, and the first network in it. Raises OtherRoad where it does not run on
        ``road``."""
        problem = self.onnx_problem()
        if road == ONNX and problem is not None:
            raise OtherRoad(f"ONNX Runtime does not run on {self.device}: {problem}")
        with self.engine(replace(tuning, kernels=road == KERNELS)) as engine:
            model = engine.load(self.compiled(0), frames)
            if road_of(model) != road:
                raise OtherRoad(f"it ran in {road_of(model)}")
            yield engine, model

    def gpu_memory(self) -> Memory:
        if self.memory is not None:
            return self.memory
        from lipwire.engine.cuda import CudaMemory

        return CudaMemory(self.device)

    def gpu_model(self, number: int, precision: Precision) -> GpuModel | None:
        folder = self.compiled(number)
        manifest = read_gpu_manifest(folder, read_manifest(folder).weights_bytes)
        return manifest.models.get(precision)


class OtherRoad(Exception):
    """A network did not run where it was to be measured."""


def road_of(model: Model) -> str:
    """What runs ``model``."""
    return KERNELS if model.in_kernels else ONNX if model.on_gpu else "the processor"


def inputs(frames: int, seed: int = 0) -> tuple[UInt8Array, Float32Array]:
    """Noise: (N, 320, 320, 3) uint8 and (N, 32, 16, 16) float32."""
    random = np.random.default_rng(seed)
    crops = random.integers(0, 256, (frames, MOUTH_PX, MOUTH_PX, 3), np.uint8)
    return crops, random.standard_normal((frames, *AUDIO_WINDOW_SHAPE), np.float32)


class Noise:
    """Frames of an avatar, ``frame_count`` of them, that take the memory of a few and no time."""

    def __init__(self, frame_count: int, seed: int = 0) -> None:
        self.frame_count = frame_count
        self._crops, _ = inputs(8, seed)

    def crop(self, index: int) -> UInt8Array:
        crop: UInt8Array = self._crops[index % len(self._crops)]
        return crop

    def crops(self, numbers: range) -> UInt8Array:
        return np.stack([self.crop(number) for number in numbers])


@dataclass(frozen=True, slots=True)
class Calls:
    times_s: list[float]
    """Of each call."""
    elapsed_s: float
    """Of all of them."""

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_s) * 1e3


def called(rig: Rig, callers: int, call: Callable[[int], object]) -> Calls:
    """``call`` from so many threads at a time, each again and again, after a few for nothing."""
    together = threading.Barrier(callers + 1)
    times_s: list[list[float]] = [[] for _ in range(callers)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            # All at once, so that every lane is used: sessions are opened here, kernels recorded.
            for _ in range(4):
                together.wait(_TOGETHER_S)
                call(number)
            together.wait(_TOGETHER_S)
            end_s = time.perf_counter() + rig.seconds
            while (begun_s := time.perf_counter()) < end_s or not times_s[number]:
                call(number)
                times_s[number].append(time.perf_counter() - begun_s)
        except BaseException as error:
            failures.append(error)
            together.abort()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            together.wait(_TOGETHER_S)
    except threading.BrokenBarrierError:
        pass
    begun_s = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - begun_s
    first = next((e for e in failures if not isinstance(e, threading.BrokenBarrierError)), None)
    if first is not None or failures:
        raise first or failures[0]
    return Calls([each for of_thread in times_s for each in of_thread], elapsed_s)
