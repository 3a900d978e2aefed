"""What the engine's tests share: small networks, their compiled forms, and the oracle.

The oracle is plain ONNX Runtime on the network as exported, in a session of its own with default
options, with NumPy before and after it: nothing of the engine is in it.
"""

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from tests.engine.emulator import Emulator, compile_kernels, compiler_problem
from tests.engine.imitated import ImitatedPrograms, StampedAvatars, half_of, stamped
from tests.engine.reference import Halved, halve
from tests.engine.standin import AVATARS, PLENTY, TUNING, Shown, opened
from tests.support.compilednetworks import compile_both, gpu_folder
from tests.support.hostmemory import HostMemory
from tests.support.madeonce import made_once

from lipwire.bench.randomnetworks import write_tiny_unet, write_unet
from lipwire.domain import MASK_COLUMNS, MASK_ROWS, Float32Array, UInt8Array, ping_pong
from lipwire.engine import compile_model
from lipwire.engine.gpu.compile import gpucompilation, gpugraphs
from lipwire.engine.gpu.compile.gpugraphs import hard_inputs
from lipwire.engine.gpu.kernels import kernelcache

SMALL_WIDTHS = (8, 8, 16, 16, 24)
"""Of a U-Net that NumPy runs in a moment."""
NARROW_WIDTHS = (16, 16, 16, 16, 16)
"""The smallest that kernels of our own run."""


@dataclass(frozen=True)
class Inputs:
    crops: UInt8Array  # (N, 320, 320, 3)
    visual: Float32Array  # (N, 6, 320, 320), made of crops
    windows: Float32Array  # (N, 32, 16, 16)


class Oracle:
    """Plain ONNX Runtime on one network's file."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options)

    def floats(self, visual: npt.NDArray[np.floating], windows: Float32Array) -> Float32Array:
        names = {value.shape[1]: value.name for value in self._session.get_inputs()}
        made: Float32Array = self._session.run(None, {names[6]: visual, names[32]: windows})[0]
        return made

    def pixels(self, inputs: Inputs) -> UInt8Array:
        mouth = self.floats(inputs.visual, inputs.windows) * np.float32(255)
        rounded: UInt8Array = np.rint(np.clip(mouth, 0, 255)).astype(np.uint8)
        return rounded.transpose(0, 2, 3, 1)


@pytest.fixture
def oracle() -> type[Oracle]:
    return Oracle


@pytest.fixture
def make_inputs() -> Callable[..., Inputs]:
    def make(frames: int, seed: int = 0) -> Inputs:
        random = np.random.default_rng(seed)
        crops = random.integers(0, 256, (frames, 320, 320, 3), np.uint8)
        real = crops.transpose(0, 3, 1, 2)
        masked = real.copy()
        masked[:, :, MASK_ROWS, MASK_COLUMNS] = 0
        visual = np.concatenate([real, masked], axis=1).astype(np.float32) / np.float32(255)
        return Inputs(crops, visual, random.standard_normal((frames, 32, 16, 16), np.float32))

    return make


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[Path], Path]:
    """Compile a network's file into a new folder."""

    def compile_(source: Path) -> Path:
        target = tmp_path / f"compiled-{source.stem}"
        target.mkdir()
        compile_model(source, target)
        return target

    return compile_


@pytest.fixture
def compiled_for_gpu(tmp_path: Path) -> Callable[[Path], Path]:
    """As ``compiled``, for GPUs too (``compile_both``)."""
    return lambda source: compile_both(source, tmp_path / f"compiled-{source.stem}")


@dataclass(frozen=True)
class Pair:
    """Two avatars of one architecture: different weights, exported with different names."""

    sources: tuple[Path, Path]
    folders: tuple[Path, Path]


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Compiled once for all tests; do not change its files."""

    def make(root: Path) -> None:
        write_tiny_unet(root / "one.onnx", seed=1)
        write_tiny_unet(root / "two.onnx", seed=2, prefix="other/", constant_nodes=True)
        for name in ("one", "two"):
            compile_both(root / f"{name}.onnx", root / name)

    root = made_once(tmp_path_factory, "pair", make)
    return Pair((root / "one.onnx", root / "two.onnx"), (root / "one", root / "two"))


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels are compiled for the processor; skips where they cannot be."""
    problem = compiler_problem()
    if problem is not None:
        pytest.skip(problem)
    return made_once(tmp_path_factory, "kernels", lambda folder: None)


@pytest.fixture(scope="session")
def emulate(kernels_folder: Path) -> Callable[..., Emulator]:
    """``emulate(text, *options) -> Emulator``; each text is compiled once."""

    def compile_(text: str, *options: str) -> Emulator:
        return compile_kernels(text, kernels_folder, options)

    return compile_


@pytest.fixture(scope="session")
def small_unet(tmp_path_factory: pytest.TempPathFactory) -> Halved:
    """The published network with few channels, as GPUs run it."""
    folder = tmp_path_factory.mktemp("small")
    write_unet(folder / "model.onnx", seed=1, widths=SMALL_WIDTHS)
    return halve(folder / "model.onnx", folder)


@pytest.fixture(scope="session")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """(network, compiled) of six avatars of one architecture, and one of another."""

    def make(root: Path) -> None:
        for seed in range(7):
            source, folder = root / f"{seed}.onnx", root / str(seed)
            write_tiny_unet(source, seed=seed, ending="clip" if seed == 6 else "sigmoid")
            compile_both(source, folder)

    root = made_once(tmp_path_factory, "engine-avatars", make)
    return [(root / f"{seed}.onnx", root / str(seed)) for seed in range(7)]


@pytest.fixture
def memory() -> Iterator[HostMemory]:
    """A stand-in for a GPU's. All of it has to be given back."""
    memory = HostMemory(PLENTY)
    yield memory
    if memory.regions or memory.host_blocks:
        gc.collect()  # what refers to itself
    assert (memory.regions, memory.host_blocks) == (0, 0)


@pytest.fixture(scope="session")
def folders(avatars: list[tuple[Path, Path]]) -> list[Path]:
    """Compiled networks of one architecture, for the avatars with frames."""
    return [folder for _, folder in avatars[:AVATARS]]


@pytest.fixture(scope="module")
def frames() -> list[Shown]:
    """Theirs."""
    return [Shown(seed) for seed in range(AVATARS)]


@pytest.fixture(scope="module")
def wanted(folders: list[Path], frames: list[Shown]) -> Callable[..., UInt8Array]:
    """What an engine makes of the pixels, frame by frame and with nothing kept."""
    tuning = replace(TUNING, crop_bytes=0, batch_sizes=(1,))
    engine, models = opened(folders, frames, HostMemory(PLENTY), tuning)

    def make(which: int, numbers: list[int], windows: Float32Array) -> UInt8Array:
        crops = frames[which].crops
        shown = [crops[ping_pong(number, len(crops))][None] for number in numbers]
        pieces = [
            engine.infer(models[which], crop, window[None])
            for crop, window in zip(shown, windows, strict=True)
        ]
        return np.concatenate(pieces)

    return make


@pytest.fixture(scope="session")
def guides(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two avatars with the published network, of the fewest channels that kernels of our own take;
    do not change their files."""

    def make(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for module in (gpucompilation, gpugraphs):  # what comes out depends on none of them
                patch.setattr(module, "hard_inputs", lambda batch: hard_inputs(batch)[:1])
            for seed in (1, 2):
                write_unet(root / f"{seed}.onnx", seed=seed, widths=NARROW_WIDTHS)
                compile_both(root / f"{seed}.onnx", root / str(seed))

    root = made_once(tmp_path_factory, "guides", make)
    return Pair((root / "1.onnx", root / "2.onnx"), (root / "1", root / "2"))


@pytest.fixture
def alike(guides: Pair, tmp_path: Path) -> Callable[[int], list[Path]]:
    """``alike(count)``: compiled avatars of the architecture of ``guides`` in no time. What they
    have instead of weights is good for kernels that are imitated."""

    def make(count: int) -> list[Path]:
        folders = [
            shutil.copytree(guides.folders[0], tmp_path / f"alike-{n}") for n in range(count)
        ]
        for number, folder in enumerate(folders):
            _, graph, image = half_of(folder)
            for weight in graph.weights:
                if weight.shape:  # constants are as planned
                    image[weight.offset_bytes] = number
            (gpu_folder(folder) / "half.bin").write_bytes(image.tobytes())
        return folders

    return make


@pytest.fixture
def stamping(guides: Pair, monkeypatch: pytest.MonkeyPatch) -> ImitatedPrograms:
    """Kernels that make mouths which show what they are made of, and need no trial."""
    monkeypatch.setattr(kernelcache, "why_not_the_same", lambda *_: None)
    return ImitatedPrograms(stamped, half_of(guides.folders[0])[2].nbytes)


@pytest.fixture
def device(stamping: ImitatedPrograms) -> Iterator[HostMemory]:
    """All of it has to be given back, and the kernels too."""
    memory = HostMemory(PLENTY, programs=stamping)
    yield memory
    if memory.regions or memory.host_blocks or stamping.loaded:
        gc.collect()
    assert (memory.regions, memory.host_blocks, stamping.loaded) == (0, 0, 0)


@pytest.fixture
def three(alike: Callable[[int], list[Path]]) -> StampedAvatars:
    """Of one architecture, with frames."""
    return StampedAvatars(alike(3))
