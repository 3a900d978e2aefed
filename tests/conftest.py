"""Avatar packages made on the fly, small enough for tests."""

import functools
import itertools
import json
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.support.impatience import make_impatient
from tests.support.madeonce import made_once

from lipwire.avatars import ALWAYS, compile_avatar, read_package
from lipwire.avatars.compiled.parts import FOR_GPU
from lipwire.bench.randomnetworks import write_tiny_audio_encoder, write_tiny_unet

PackageFactory = Callable[..., Path]

# Servers that tests start run networks in float32, where each frame has one right answer, whatever
# the processor; those of the tests of bfloat16 say otherwise.
os.environ.setdefault("LIPWIRE_ONNX__PRECISION", "float32")


def picture(index: int, size: tuple[int, int], seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frame ``index``: (height, width, 3) uint8 BGR, smooth shades that move and a little noise."""
    width, height = size
    random = np.random.default_rng((seed, index))
    small = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    noise = random.integers(-6, 7, (height, width, 3))
    return np.asarray(np.clip(smooth.astype(np.int16) + noise, 0, 255), np.uint8)


@functools.cache
def image_file(index: int, size: tuple[int, int], seed: int, extension: str) -> bytes:
    """``picture`` as an image file."""
    written, data = cv2.imencode(f".{extension}", picture(index, size, seed))
    assert written
    return data.tobytes()


@functools.cache
def network_file(write: Callable[..., object], seed: int) -> bytes:
    """The ONNX file that ``write(path, seed=seed)`` makes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write(path, seed=seed)
        return path.read_bytes()


def make_package_at(
    path: Path,
    *,
    frames: int = 8,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    settings: dict[str, object] | None = None,
    extension: str = "png",
    encoder: bool = True,
) -> Path:
    """Write a package of ``frames`` pictures of ``size`` (width, height) with a tiny network.

    The rectangle moves from frame to frame. ``settings`` are the keys of avatar.yaml (no file where
    None). Different seeds give different pictures and different networks.
    """
    width, height = size
    (path / "frames").mkdir(parents=True)
    (path / "checkpoint").mkdir()
    checkpoint = path / "checkpoint"
    (checkpoint / "model_best.onnx").write_bytes(network_file(write_tiny_unet, seed))
    if encoder:
        encoder_file = network_file(write_tiny_audio_encoder, seed)
        (checkpoint / "audio_encoder.onnx").write_bytes(encoder_file)
    rects = []
    side = min(width, height) // 2
    for index in range(frames):
        target = path / "frames" / f"frame_{index:04d}.{extension}"
        target.write_bytes(image_file(index, size, seed, extension))
        x = (width - side) // 3 + index % 5
        y = (height - side) // 2 + index % 3
        rects.append([x, y, x + side, y + side - 1])
    (path / "crop_rects.json").write_text(json.dumps(rects))
    if settings is not None:
        lines = (f"{key}: {json.dumps(value)}" for key, value in settings.items())
        (path / "avatar.yaml").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def make_package() -> PackageFactory:
    """``make_package(path, *, frames=8, size=(320, 240), seed=0, settings=None, extension="png",
    encoder=True) -> Path``; see ``make_package_at``.
    """
    return make_package_at


@pytest.fixture(scope="session")
def package_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package for the whole run. Nobody writes to it."""
    made = made_once(tmp_path_factory, "template", lambda folder: make_package_at(folder / "anna"))
    return made / "anna"


@pytest.fixture(scope="session")
def compiled_template(package_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``package_template``, compiled for servers, on GPUs too. Nobody writes to it."""

    def make(folder: Path) -> None:
        package = shutil.copytree(package_template, folder / "anna")
        compile_avatar(read_package(package), parts=ALWAYS | FOR_GPU | {"jpeg"})

    return made_once(tmp_path_factory, "compiled-template", make) / "anna"


@pytest.fixture
def avatar_package(compiled_template: Path, tmp_path: Path) -> Path:
    """A fresh package named ``anna``: 8 frames of 320x240, a tiny network and audio encoder.

    It is compiled for servers, on GPUs too, unless a folder or file says otherwise.
    """
    return shutil.copytree(compiled_template, tmp_path / "anna")


@pytest.fixture
def own_threads() -> Callable[[], list[str]]:
    """Names of those of Lipwire's threads that began in this test and have not ended.

    Those of an earlier test may be about to.
    """
    before = set(threading.enumerate())

    def names() -> list[str]:
        begun = set(threading.enumerate()) - before
        return sorted(each.name for each in begun if each.name.startswith("lipwire-"))

    return names


@pytest.fixture(scope="session")
def empty_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders that are nobody's home yet. ``mktemp`` would look through all that it ever made."""
    root = tmp_path_factory.mktemp("homes")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(scope="session")
def folder_numbers() -> Iterator[int]:
    """For ``tmp_path``: none comes twice."""
    return itertools.count()


@pytest.fixture
def tmp_path(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    folder_numbers: Iterator[int],
) -> Path:
    """An empty folder of the test's own. pytest's fixture looks for a number that is free among all
    folders of the run: after two thousand tests that takes milliseconds each time."""
    name = re.sub(r"\W", "_", request.node.name)[:26]
    return tmp_path_factory.mktemp(f"{name}-{next(folder_numbers)}", numbered=False)


@pytest.fixture(autouse=True)
def own_folders(empty_homes: Iterator[Path]) -> Iterator[None]:
    """No test writes to the user's cache folder, or finds the user's avatars."""
    home = next(empty_homes)
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        patch.delenv("LIPWIRE_AVATARS", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def impatient_servers() -> Iterator[None]:
    """Web servers in this process stop at once."""
    with pytest.MonkeyPatch.context() as patch:
        make_impatient(patch)
        yield


class _Unretrieved(logging.Handler):
    """Keeps what asyncio says of Lipwire's tasks that failed without anybody to be told."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        # Where the task's function is defined; libraries have such tasks, too.
        if "never retrieved" in said and re.search(r"(src|site-packages)[/\\]lipwire[/\\]", said):
            self.said.append(said)


@pytest.fixture(scope="session")
def unretrieved() -> Iterator[_Unretrieved]:
    """Of the whole run: it is said when the task is garbage, which may be in another test."""
    handler = _Unretrieved()
    logging.getLogger("asyncio").addHandler(handler)
    yield handler
    logging.getLogger("asyncio").removeHandler(handler)


@pytest.fixture(autouse=True)
def no_task_fails_alone(unretrieved: _Unretrieved) -> Iterator[None]:
    """A test fails in which it is seen that a task has failed without anybody to be told. That
    task may be of an earlier test: its name and its error are said."""
    yield
    said, unretrieved.said = unretrieved.said, []
    assert not said, "\n".join(said)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """What a test does to the loggers is undone: others look at what is logged."""
    loggers = [logging.getLogger(name) for name in ("lipwire", "grpc")]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers
