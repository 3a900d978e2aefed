"""Tables of renders, and avatars for them."""

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lipwire.avatars import compile_avatar, read_package


def write_recording(path: Path, seconds: float = 0.1, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).normal(0, 3000, round(seconds * 16_000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(noise.astype("<i2").tobytes())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Has the recordings a.wav and b.wav, and an empty folder out."""
    (tmp_path / "out").mkdir()
    for seed, name in enumerate(("a.wav", "b.wav")):
        write_recording(tmp_path / name, seed=seed)
    return tmp_path


@pytest.fixture
def write_table(folder: Path) -> Callable[..., Path]:
    """``write_table(line, ...)`` writes a table, with a first line of the usual names."""

    def write(*lines: str, names: str = "avatar,audio,out") -> Path:
        path = folder / "jobs.csv"
        path.write_text("\n".join((names, *lines)) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def two_avatars(
    tmp_path_factory: pytest.TempPathFactory, make_package: Callable[..., Path]
) -> Path:
    """A folder with the compiled avatars anna and bert. Nobody writes to it."""
    root = tmp_path_factory.mktemp("avatars")
    for seed, name in enumerate(("anna", "bert")):
        package = make_package(root / name, frames=4, size=(128, 96), seed=seed)
        compile_avatar(read_package(package), parts=frozenset({"model", "patches"}))
    return root
