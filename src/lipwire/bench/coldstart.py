"""From a cold avatar to its first frame, against the plain way.

Cold: the avatar is compiled, and this process has nothing of it mapped. The plain way decodes all
frames, opens a session of its own on the ONNX file, runs it once, pastes and encodes.

Three states are compared. "Fresh process": there is no session yet, as for the first avatar of a
server. "Running server": another avatar of the architecture is being served, so its session is
shared. Both with the files in the page cache. "From the disk": as the second, but the kernel is
asked before each round to drop the files' pages (Linux; their place in other caches is unknown),
which counts in the times of both sides and not in the note.
"""

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import onnxruntime as ort

from lipwire.avatars import Avatar, Part
from lipwire.bench.compose import textured_picture
from lipwire.bench.harness import Comparison, compare
from lipwire.bench.randomnetworks import MOBILE_WIDTHS, Widths, write_unet
from lipwire.compose import network_crop, paste_mouth
from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    MASK_COLUMNS,
    MASK_ROWS,
    CropRect,
    Float32Array,
    UInt8Array,
)
from lipwire.engine import Engine

_PARTS: Final[frozenset[Part]] = frozenset({"jpeg"})
_QUALITY: Final = 75
_RECT_PX: Final = 180
_BORDER_PX: Final = 4


@dataclass(frozen=True, slots=True)
class _Job:
    """Two packages of one architecture with other weights and frames, and some speech."""

    package: Path
    neighbour: Path
    window: Float32Array  # (1, 32, 16, 16)


def run(
    rounds: int = 5,
    *,
    frames: int = 120,
    size: tuple[int, int] = (1280, 720),
    widths: Widths = MOBILE_WIDTHS,
) -> list[Comparison]:
    """Compare two ways to the first frame of an avatar that is not open yet: Lipwire's, with its
    compiled form, and decoding all its frames and opening an ONNX Runtime session for it. The
    avatar, made in a temporary folder, has ``frames`` frames of ``size`` (width, height) and a
    network whose layers have ``widths`` channels.

    Returns a result for each of three states, measured in ``rounds`` rounds: Lipwire's engine is
    new, as in a fresh process; it runs another avatar already, as in a running server; and the
    latter with the avatar's files read from the disk (only where the system has
    ``posix_fadvise``). The notes say what the first frame costs besides its inference. Raises
    RuntimeError when the two ways do not give the same picture.
    """
    with tempfile.TemporaryDirectory(prefix="lipwire-coldstart-") as folder:
        random = np.random.default_rng(0)
        job = _Job(
            package=write_package(Path(folder) / "one", frames, size, widths, seed=1),
            neighbour=write_package(Path(folder) / "two", 1, size, widths, seed=2),
            window=random.standard_normal((1, *AUDIO_WINDOW_SHAPE)).astype(np.float32),
        )
        Avatar.open(job.package, parts=_PARTS, quality=_QUALITY).close()
        _check_same_picture(job)
        label = f"{frames} frames of {size[0]}x{size[1]}"
        return [
            _compare(f"first frame, fresh process, {label}", job, rounds, shared=False),
            _compare(f"first frame, running server, {label}", job, rounds, shared=True),
            *_from_disk(f"first frame, from the disk, {label}", job, rounds),
        ]


def _compare(
    name: str, job: _Job, rounds: int, *, shared: bool, from_disk: bool = False
) -> Comparison:
    with _serving(job) as server:

        def prepare() -> None:
            if from_disk:
                _drop_pages(job.package)

        def lipwire() -> bytes:
            if shared:
                return _first_frame(job, server)
            with Engine() as engine:
                return _first_frame(job, engine)

        def lipwire_from_there() -> bytes:
            prepare()
            return lipwire()

        def plain_from_there() -> bytes:
            prepare()
            return _first_frame_plainly(job)

        besides_ms, inference_ms = _besides_inference(job, prepare, lipwire, server, max(5, rounds))
        return compare(
            name,
            lipwire_from_there,
            plain_from_there,
            label_a="compiled, mapped",
            label_b="decode all, new session, imencode",
            rounds=rounds,
            warmup=1,
            notes=f"{besides_ms:.1f} ms besides one inference of {inference_ms:.1f} ms",
        )


def _from_disk(name: str, job: _Job, rounds: int) -> Iterator[Comparison]:
    if hasattr(os, "posix_fadvise"):
        yield _compare(name, job, rounds, shared=True, from_disk=True)


def _besides_inference(
    job: _Job,
    prepare: Callable[[], None],
    first_frame: Callable[[], bytes],
    server: Engine,
    rounds: int,
) -> tuple[float, float]:
    """Medians in ms: (a first frame less the inference timed next to it, that inference)."""
    besides_ms: list[float] = []
    inferences_ms: list[float] = []
    with Avatar.open(job.neighbour) as avatar:
        model = server.load(avatar.model_path)
        crops = avatar.crop(0)[None]
        for _ in range(rounds):
            prepare()
            start_s = time.perf_counter()
            first_frame()
            between_s = time.perf_counter()
            server.infer(model, crops, job.window)
            inferences_ms.append((time.perf_counter() - between_s) * 1000)
            besides_ms.append((between_s - start_s) * 1000 - inferences_ms[-1])
    return statistics.median(besides_ms), statistics.median(inferences_ms)


@contextmanager
def _serving(job: _Job) -> Iterator[Engine]:
    """An engine that has served a frame of the neighbour."""
    with Engine() as engine, Avatar.open(job.neighbour, parts=_PARTS) as avatar:
        model = engine.load(avatar.model_path)
        engine.infer(model, avatar.crop(0)[None], job.window)
        yield engine


def _first_frame(job: _Job, engine: Engine) -> bytes:
    with Avatar.open(job.package, parts=_PARTS, quality=_QUALITY) as avatar:
        model = engine.load(avatar.model_path)
        (mouth,) = engine.infer(model, avatar.crop(0)[None], job.window)
        return avatar.jpeg(0, mouth)


def _first_frame_plainly(job: _Job) -> bytes:
    paths = sorted((job.package / "frames").iterdir())
    frames = [cv2.imread(str(path)) for path in paths]
    rects = [CropRect(*r) for r in json.loads((job.package / "crop_rects.json").read_bytes())]
    session = ort.InferenceSession(
        job.package / "checkpoint" / "model_best.onnx", providers=["CPUExecutionProvider"]
    )
    frame = np.asarray(frames[0], np.uint8)
    crop = network_crop(frame, rects[0], _BORDER_PX)
    masked = crop.copy()
    masked[MASK_ROWS, MASK_COLUMNS] = 0
    visual = np.concatenate([crop, masked], axis=2).transpose(2, 0, 1)[None]
    (output,) = session.run(
        None, {"input": visual.astype(np.float32) / np.float32(255), "audio": job.window}
    )
    mouth = np.clip(np.rint(output[0] * np.float32(255)), 0, 255).astype(np.uint8)
    paste_mouth(frame, (0, 0), np.ascontiguousarray(mouth.transpose(1, 2, 0)), rects[0], _BORDER_PX)
    return cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _check_same_picture(job: _Job) -> None:
    with Engine() as engine:
        mine, plain = (
            np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.int16)
            for jpeg in (_first_frame(job, engine), _first_frame_plainly(job))
        )
    apart = np.abs(mine - plain)
    # A mouth's pixel that lies between two values may be rounded either way; JPEG spreads it.
    if apart.mean() > 0.05:
        raise RuntimeError(f"the two first frames are {apart.mean():.3f} apart, allowed is 0.05")


def _drop_pages(package: Path) -> None:
    """Ask the kernel to forget the pages of all files of a package; it keeps those mapped."""
    for path in package.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def write_package(
    path: Path, frames: int, size: tuple[int, int], widths: Widths, seed: int
) -> Path:
    """Write an avatar package into the folder ``path``, which is made, and return ``path``. It has
    ``frames`` frames of a moving picture, ``size`` (width, height), and a network with random
    weights whose layers have the channels ``widths``. The same ``seed`` gives the same package."""
    (path / "frames").mkdir(parents=True)
    (path / "checkpoint").mkdir()
    write_unet(path / "checkpoint" / "model_best.onnx", seed=seed, widths=widths)
    width, height = size
    side = min(_RECT_PX, width // 2, height // 2)
    picture = textured_picture(width, height, seed)
    rects = []
    for number in range(frames):
        frame: UInt8Array = np.roll(picture, number, axis=1)
        cv2.imwrite(str(path / "frames" / f"frame_{number:04d}.png"), frame)
        x, y = (width - side) // 2 + number % 16, (height - side) // 3 + number % 9
        rects.append([x, y, x + side, y + side])
    (path / "crop_rects.json").write_text(json.dumps(rects))
    return path
