"""The demo avatar as other programs would have left it: their folders, made of its frames."""

import json
import wave
from contextlib import closing
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from tests.avatars.videos import write_video
from tests.conftest import network_file

from lipwire.api import open_avatar
from lipwire.avatars import find_avatar, read_package
from lipwire.avatars.frames.frameloading import frame_tasks
from lipwire.avatars.importing.networks import Checkpoints
from lipwire.bench.randomnetworks import write_tiny_audio_encoder, write_tiny_unet
from lipwire.domain import CropRect, Float32Array, UInt8Array

COUNT = 6
SPEECH = np.random.default_rng(4).uniform(-0.4, 0.4, 16_000 * 16 // 25).astype(np.float32)
"""16 frames: the loop of six turns round twice."""
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95]


def no_checkpoints() -> Checkpoints:
    """What reads checkpoints where there are none."""

    def fail(*_: object) -> str:
        raise AssertionError("no checkpoint is to be read")

    return Checkpoints(fail, fail)  # type: ignore[arg-type]


@cache
def demo_frames() -> list[UInt8Array]:
    """The first frames of the demo avatar at half its size, 640x360. Everybody gets the same."""
    pictures = read_package(find_avatar("demo")).pictures
    with closing(frame_tasks(pictures)) as tasks:
        whole = [task() for task in islice(tasks, 0, COUNT * 10, 10)]
    frames = [np.asarray(cv2.resize(each, (640, 360)), np.uint8) for each in whole]
    for frame in frames:
        frame.flags.writeable = False
    return frames


def demo_rectangles() -> list[CropRect]:
    """The squares of its face, which are made to move a little."""
    rects = read_package(find_avatar("demo")).rects[:COUNT]
    corners = [(rect.x1 // 2 + i % 3, rect.y1 // 2 - i % 2) for i, rect in enumerate(rects)]
    return [CropRect(x, y, x + 120, y + 120) for x, y in corners]


def write_images(folder: Path, frames: list[UInt8Array], pattern: str, first: int = 0) -> None:
    """Write the frames as images whose names are ``pattern``, formatted with the numbers."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, first):
        path = folder / pattern.format(number)
        path.write_bytes(_image_file(frame.tobytes(), frame.shape, path.suffix))


@cache
def _image_file(pixels: bytes, shape: tuple[int, ...], suffix: str) -> bytes:
    frame = np.frombuffer(pixels, np.uint8).reshape(shape)
    written, data = cv2.imencode(suffix, frame, JPEG if suffix == ".jpg" else [])
    assert written
    return data.tobytes()


def write_networks(folder: Path, network: str, encoder: str | None) -> None:
    """Write tiny networks as the ONNX files of these names below ``folder``."""
    for name in filter(None, (network, encoder)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / network).write_bytes(network_file(write_tiny_unet, 7))
    if encoder is not None:
        (folder / encoder).write_bytes(network_file(write_tiny_audio_encoder, 7))


def write_landmarks(folder: Path, rects: list[CropRect], *, scale: float = 1.0) -> None:
    """Write a ``.lms`` file of 110 points for each of the rectangles, which it gives again; with a
    ``scale``, those of pictures of another size."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for number, rect in enumerate(rects):
        points = random.uniform(rect.x1, rect.x2, (110, 2))
        points[1, 0], points[31, 0], points[52, 1] = rect.x1 + 0.4, rect.x2 + 0.7, rect.y1 + 0.2
        lines = "".join(f"{x:.3f} {y:.3f}\n" for x, y in points * scale)
        (folder / f"{number}.lms").write_text(lines)


def write_wav(path: Path, samples: Float32Array) -> None:
    """Write ``samples``, (n,) float32 in [-1, 1] at 16 kHz, as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((samples * 32_767).astype("<i2").tobytes())


def listed(rects: list[CropRect]) -> list[list[int]]:
    """The rectangles as JSON has them."""
    return [[rect.x1, rect.y1, rect.x2, rect.y2] for rect in rects]


def write_own_package(path: Path, frames: list[UInt8Array], suffix: str = ".png") -> Path:
    """A package as a person would make it by hand: what all others are compared with."""
    write_images(path / "frames", frames, "frame_{:04d}" + suffix)
    (path / "crop_rects.json").write_text(json.dumps(listed(demo_rectangles())))
    write_networks(path, "checkpoint/model_best.onnx", "checkpoint/audio_encoder.onnx")
    return path


def write_synctalk(path: Path, frames: list[UInt8Array]) -> Path:
    """SyncTalk_2D's data folder with ONNX beside it."""
    write_images(path / "full_body_img", frames, "{}.jpg")
    write_landmarks(path / "landmarks", demo_rectangles())
    write_networks(path, f"checkpoint/{path.name}/unet.onnx", "audio_visual_encoder.onnx")
    (path / f"{path.name}.mp4").write_bytes(b"the recording, which is not looked at")
    return path


def write_guide_package(path: Path, frames: list[UInt8Array]) -> Path:
    """The guide's package: PNG frames, and a list of rectangles."""
    write_images(path / "frames", frames, "frame_{:04d}.png")
    (path / "crop_rects.json").write_text(json.dumps(listed(demo_rectangles())))
    write_networks(path, "checkpoint/model_best.onnx", "models/audio_encoder.onnx")
    return path


def write_video_package(path: Path, frames: list[UInt8Array], *, said: int = COUNT) -> Path:
    """The package of videos, ``mp4_video_package`` 2.0; its description says ``said`` frames."""
    (path / "cache").mkdir(parents=True)
    write_video(path / "full_body_video.mp4", range(len(frames)), frames=frames)
    write_video(path / "crops_328_video.mp4", range(3), frames=frames[:3])
    (path / "package_info.json").write_text(
        json.dumps(
            {
                "dataset_name": path.name,
                "package_type": "mp4_video_package",
                "package_version": "2.0",
                "videos": {
                    "full_body": {"filename": "full_body_video.mp4", "frame_count": said},
                    "model_inputs": {"filename": "model_inputs_video.mp4", "frame_count": said},
                },
            }
        )
    )
    entries = {
        str(number): {"rect": rect, "original_path": f"full_body_img/{number}.jpg"}
        for number, rect in enumerate(listed(demo_rectangles()))
    }
    (path / "cache" / "crop_rectangles.json").write_text(json.dumps(entries))
    write_networks(path, "models/generator.onnx", "models/audio_encoder.onnx")
    return path


def spoken(package: Path) -> list[UInt8Array]:
    """The frames of the avatar ``package`` while it says ``SPEECH``."""
    with open_avatar(package) as avatar:
        return [frame.bgr.copy() for frame in avatar.speak(SPEECH)]


@cache
def spoken_by_hand() -> list[UInt8Array]:
    """The frames of the package that a person would make of ``demo_frames`` by hand."""
    with TemporaryDirectory() as folder:
        return spoken(write_own_package(Path(folder) / "hand", demo_frames()))


def assert_same_frames(package: Path, wanted: list[UInt8Array]) -> None:
    """The package shows the frames ``wanted``, to the bit."""
    for made, frame in zip(spoken(package), wanted, strict=True):
        np.testing.assert_array_equal(made, frame)
