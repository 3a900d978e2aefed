"""A stand-in for a GPU, in the processor's memory, and avatars for it: small networks, with frames
of noise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.compilednetworks import load_both
from tests.support.hostmemory import HostMemory

from lipwire.domain import Float32Array, UInt8Array
from lipwire.engine import Engine, Model
from lipwire.engine.tuning import Tuning

PLENTY = 1 << 30
"""Bytes."""
SINGLE = Tuning(precision="single")
TUNING = Tuning(precision="single", streams=1, batch_sizes=(1, 2, 4))
AVATARS = 4
"""With frames."""
FRAMES = 6
"""Of each of them."""


def near(made: Any, wanted: Any, mean: float = 0.02) -> bool:
    """Whether pixels differ by one at most, and seldom."""
    apart = np.abs(made.astype(int) - wanted)
    return bool(apart.max() <= 1 and apart.mean() <= mean)


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


class Shown:
    """The frames of an avatar: noise, of its own."""

    def __init__(self, seed: int, frame_count: int = FRAMES) -> None:
        self.frame_count = frame_count
        random = np.random.default_rng(seed)
        self.crops: UInt8Array = random.integers(0, 256, (frame_count, 320, 320, 3), np.uint8)
        self.asked: list[int] = []
        self.error: Exception | None = None

    def crop(self, index: int) -> UInt8Array:
        self.asked.append(index)
        if self.error is not None:
            raise self.error
        crop: UInt8Array = self.crops[index]
        return crop


def speech(frames: int, seed: int = 0) -> Float32Array:
    return np.random.default_rng(seed).standard_normal((frames, 32, 16, 16), np.float32)


def opened(
    folders: list[Path], frames: list[Shown], memory: HostMemory, tuning: Tuning = TUNING
) -> tuple[Engine, list[Model]]:
    engine = Engine(threads=1, memory=memory, tuning=tuning)
    pairs = zip(folders, frames, strict=True)
    return engine, [load_both(engine, folder, shown) for folder, shown in pairs]


def image_bytes_of(folder: Path) -> int:
    with Engine(threads=1, memory=HostMemory(PLENTY), tuning=TUNING) as engine:
        return load_both(engine, folder).weights_bytes
