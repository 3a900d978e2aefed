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

from lipwire.bench.randomnetworks import Widths, write_tiny_unet, write_unet
from lipwire.domain import AUDIO_WINDOW_SHAPE, MOUTH_PX, Float32Array, UInt8Array
from lipwire.engine import Device, Engine, Model, Tuning, compile_model, cuda_problem
from lipwire.engine.gpu.compile.gpucompilation import compile_for_gpu
from lipwire.engine.gpu.kernels.cuda.cudaprograms import open_cuda
from lipwire.engine.gpu.memory.devicememory import Memory
from lipwire.engine.gpu.store.gpufiles import GpuModel, read_gpu_manifest
from lipwire.engine.graphs import PRECISIONS, Precision
from lipwire.engine.runner import Frames
from lipwire.engine.runtime import CudaOptions
from lipwire.engine.tuning import BATCH_SIZES

KERNELS: Final = "kernels"
ONNX: Final = "ONNX Runtime"
ROADS: Final = (KERNELS, ONNX)
"""What runs a network on a GPU: kernels of our own, or ONNX Runtime."""

Row = dict[str, str | int | float]
"""One line of a table."""

_TOGETHER_S = 200.0
"""A first call opens a session and tries every algorithm of every layer, in all streams at once."""


@dataclass(slots=True)
class Rig:
    """What the parts of the GPU measurement share: a ``folder`` for networks; the ``device`` that
    runs them; what allocates ``memory`` on it (None: the device's own); the ``widths`` (channels)
    of the networks' layers (None: tiny networks); whether few rounds are measured (``quick``); and
    ``end_s``, when the time is over, in seconds of ``clock_s()``."""

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
        """The ONNX Runtime session options that ``prefer`` has written to ``folder``, in this or an
        earlier process; the defaults where there are none."""
        try:
            return CudaOptions(**json.loads(self._best.read_text("utf-8")))
        except FileNotFoundError:
            return CudaOptions()

    def prefer(self, options: CudaOptions) -> None:
        """Let later parts of the measurement, and later processes with this folder, use the session
        options ``options``: they are written to a file in ``folder``."""
        self._best.write_text(json.dumps(asdict(options)), "utf-8")

    @property
    def _best(self) -> Path:
        return self.folder / "options.json"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes that are measured, in frames."""
        return (1, 4) if self.quick else BATCH_SIZES

    @property
    def large(self) -> int:
        """The batch size, in frames, for which the project's targets of speed are stated."""
        return 4 if self.quick else 24

    @property
    def seconds(self) -> float:
        """How many seconds each figure is measured for."""
        return 0.05 if self.quick else 0.6

    def time_is_up(self) -> bool:
        """Return whether the time for all parts (until ``end_s``) is over; parts then end early."""
        return self.clock_s() >= self.end_s

    @property
    def device_of_sessions(self) -> Device:
        """The device on which ONNX Runtime opens sessions."""
        return self.device if self.memory is None else self.memory.device

    def source(self, number: int) -> Path:
        """Return the path of the ONNX file of network ``number``, from 0, which is also the seed of
        its weights. The first call writes the file."""
        path = self.folder / f"{number}.onnx"
        if not path.exists():
            if self.widths is None:
                write_tiny_unet(path, seed=number)
            else:
                write_unet(path, seed=number, widths=self.widths)
        return path

    def compiled(self, number: int, *, for_gpu: bool = False) -> Path:
        """Return the path of the folder with the compiled form of network ``number``, which the
        first call makes. With ``for_gpu``, return the folder with its graphs and weights for GPUs
        instead."""
        path = self.folder / f"{'gpu' if for_gpu else 'compiled'}-{number}"
        if not path.exists():
            path.mkdir()
            if for_gpu:
                compile_for_gpu(self.source(number), self.compiled(number), path, PRECISIONS)
            else:
                compile_model(self.source(number), path)
        return path

    def load(self, engine: Engine, number: int, frames: Frames | None = None) -> Model:
        """Load network ``number`` into ``engine``, on the GPU where it runs there, and return it.
        ``frames`` are the frames of its avatar, for calls that give frame numbers in place of
        crops; None where each call brings its crops."""
        return engine.load(
            self.compiled(number), frames, for_gpu=self.compiled(number, for_gpu=True)
        )

    def engine(self, tuning: Tuning) -> Engine:
        """Return a new engine on the device, with the options ``tuning`` and one thread for work on
        the processor; the caller has to close it."""
        return Engine(threads=1, device=self.device, tuning=tuning, memory=self.memory)

    def onnx_problem(self) -> str | None:
        """Return why ONNX Runtime does not run on the device, as a line of text; None where it
        does."""
        return cuda_problem(self.device) if self.memory is None else self.memory.onnx_problem()

    @contextmanager
    def loaded(
        self, road: str, tuning: Tuning, frames: Frames | None = None
    ) -> Iterator[tuple[Engine, Model]]:
        """Give the ``with`` block a new engine and a network loaded in it, whose weights are random
        numbers from the seed 0, and close the engine afterwards. A context manager.

        ``road`` says what has to run the network: ``KERNELS`` (Lipwire's) or ``ONNX`` (ONNX
        Runtime). ``tuning`` are the engine's options, except that ``road`` decides its ``kernels``.
        ``frames`` are the frames of an avatar, for calls that give frame numbers in place of crops;
        None where each call brings its crops. Raises OtherRoad where something else runs the
        network, or ONNX Runtime is wanted and does not run on the device.
        """
        problem = self.onnx_problem()
        if road == ONNX and problem is not None:
            raise OtherRoad(f"ONNX Runtime does not run on {self.device}: {problem}")
        with self.engine(replace(tuning, kernels=road == KERNELS)) as engine:
            model = self.load(engine, 0, frames)
            if road_of(model) != road:
                raise OtherRoad(f"it ran in {road_of(model)}")
            yield engine, model

    def gpu_memory(self) -> Memory:
        """Return what allocates and copies memory on the device: ``memory``, or, where that is
        None, the GPU's, which is opened."""
        if self.memory is not None:
            return self.memory
        return open_cuda(self.device)

    def gpu_model(self, number: int, precision: Precision) -> GpuModel | None:
        """Return the description of the graphs and weights of network ``number`` for GPUs in
        ``precision``; None where it has no such form."""
        manifest = read_gpu_manifest(self.compiled(number, for_gpu=True))
        return manifest.models.get(precision)


class OtherRoad(Exception):
    """Raised where a network is not run by what ``road`` asks for: Lipwire's kernels or ONNX
    Runtime."""


def road_of(model: Model) -> str:
    """Return what runs ``model``, as a word for rows: ``KERNELS``, ``ONNX`` or "the processor"."""
    return KERNELS if model.in_kernels else ONNX if model.on_gpu else "the processor"


def inputs(frames: int, seed: int = 0) -> tuple[UInt8Array, Float32Array]:
    """Return noise as input for ``frames`` frames (N): crops (N, 320, 320, 3) uint8, 0 to 255, and
    audio windows (N, 32, 16, 16) float32, normally distributed. The same ``seed`` gives the same
    noise."""
    random = np.random.default_rng(seed)
    crops = random.integers(0, 256, (frames, MOUTH_PX, MOUTH_PX, 3), np.uint8)
    return crops, random.standard_normal((frames, *AUDIO_WINDOW_SHAPE), np.float32)


class Noise:
    """Frames of an avatar for measurements: crops of noise, drawn from ``seed``, with the frame
    numbers 0 to ``frame_count`` - 1. Only 8 different crops are in memory; frame n has crop n
    modulo 8."""

    def __init__(self, frame_count: int, seed: int = 0) -> None:
        self.frame_count = frame_count
        self._crops, _ = inputs(8, seed)

    def crop(self, index: int) -> UInt8Array:
        """Return the crop of frame ``index``, (320, 320, 3) uint8, 0 to 255."""
        crop: UInt8Array = self._crops[index % len(self._crops)]
        return crop

    def crops(self, numbers: range) -> UInt8Array:
        """Return the crops of frames ``numbers``, (N, 320, 320, 3) uint8, 0 to 255."""
        return np.stack([self.crop(number) for number in numbers])


@dataclass(frozen=True, slots=True)
class Calls:
    """How long repeated calls took, in seconds: ``times_s`` has the time of each call, and
    ``elapsed_s`` is the time from the beginning of the first call to the end of the last."""

    times_s: list[float]
    """Seconds of each call."""
    elapsed_s: float
    """Seconds of all calls together."""

    @property
    def median_ms(self) -> float:
        """The median time of a call, in milliseconds."""
        return statistics.median(self.times_s) * 1e3


def called(rig: Rig, callers: int, call: Callable[[int], object]) -> Calls:
    """Call ``call(number)`` again and again in ``callers`` threads at once, for ``rig.seconds``,
    and return how long the calls took. ``number`` is that of the thread, from 0.

    Each thread first makes four calls that are not counted, and then at least one that is. Where a
    call raises, its thread ends; when all threads have ended, the first such error is raised.
    """
    together = threading.Barrier(callers + 1)
    times_s: list[list[float]] = [[] for _ in range(callers)]
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            # All at once, so that every stream is used: sessions are opened here, kernels recorded.
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
