"""Tests of what only a GPU can show. Without one they are skipped, and say why."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from tests.support.compilednetworks import compile_both

from lipwire.bench.randomnetworks import (
    FULL_WIDTHS,
    MOBILE_WIDTHS,
    Widths,
    write_tiny_unet,
    write_unet,
)
from lipwire.domain import MASK_COLUMNS, MASK_ROWS, Float32Array, UInt8Array
from lipwire.engine import Device, cuda_problem
from lipwire.engine.gpu.kernels.cuda.cudaprograms import kernels_problem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = f"{Path(__file__).parent}{os.sep}"
    mine = [item for item in items if str(item.path).startswith(here)]
    for item in mine:
        item.add_marker(pytest.mark.gpu)
        problem = _problem(kernels=item.path.stem == "test_kernels")
        if problem is not None:
            item.add_marker(pytest.mark.skip(reason=f"no CUDA: {problem}"))


@functools.cache
def _problem(*, kernels: bool) -> str | None:
    """Kernels of our own need nothing of ONNX Runtime but its processor's part."""
    return kernels_problem(Device.cuda(0)) if kernels else cuda_problem()


@dataclass(frozen=True)
class Avatar:
    source: Path
    folder: Path

    def pixels(self, crops: UInt8Array, windows: Float32Array) -> UInt8Array:
        """By plain ONNX Runtime on the processor."""
        mouth = self.floats(visual_of(crops), windows) * np.float32(255)
        rounded: UInt8Array = np.rint(np.clip(mouth, 0, 255)).astype(np.uint8)
        return rounded.transpose(0, 2, 3, 1)

    def floats(self, visual: Float32Array, windows: Float32Array) -> Float32Array:
        session = onnxruntime.InferenceSession(str(self.source), providers=["CPUExecutionProvider"])
        made: Float32Array = session.run(None, {"input": visual, "audio": windows})[0]
        return made


def visual_of(crops: UInt8Array) -> Float32Array:
    """(N, 320, 320, 3) uint8 -> (N, 6, 320, 320) float32 in [0, 1]."""
    real = crops.transpose(0, 3, 1, 2)
    masked = real.copy()
    masked[:, :, MASK_ROWS, MASK_COLUMNS] = 0
    both: Float32Array = np.concatenate([real, masked], axis=1).astype(np.float32)
    return both / np.float32(255)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Avatar]:
    """Six of one architecture."""
    return [_made(tmp_path_factory.mktemp("tiny"), seed, None) for seed in range(6)]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> list[Avatar]:
    """Six of the published layers, as narrow as kernels of our own take them."""
    widths = (16, 16, 16, 32, 32)
    return [_made(tmp_path_factory.mktemp("small"), seed, widths) for seed in range(6)]


@pytest.fixture(scope="session")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> list[Avatar]:
    """Three of the published layers at half their width."""
    return [_made(tmp_path_factory.mktemp("mobile"), seed, MOBILE_WIDTHS) for seed in range(3)]


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> list[Avatar]:
    """Two of the published layers and widths."""
    return [_made(tmp_path_factory.mktemp("full"), seed, FULL_WIDTHS) for seed in range(2)]


def _made(root: Path, seed: int, widths: Widths | None) -> Avatar:
    source, folder = root / "model.onnx", root / "compiled"
    if widths is None:
        write_tiny_unet(source, seed=seed)
    else:
        write_unet(source, seed=seed, widths=widths)
    return Avatar(source, compile_both(source, folder))


@pytest.fixture
def noise() -> Callable[[int, int], tuple[UInt8Array, Float32Array]]:
    def make(frames: int, seed: int) -> tuple[UInt8Array, Float32Array]:
        random = np.random.default_rng(seed)
        crops = random.integers(0, 256, (frames, 320, 320, 3), np.uint8)
        return crops, random.standard_normal((frames, 32, 16, 16), np.float32)

    return make
