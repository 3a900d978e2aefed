"""What validation says of pictures that are shown otherwise than one may expect."""

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.avatars.frames.test_images import exif, with_exif
from tests.avatars.videos import set_matrix, with_video, without_middle, write_video

from lipwire.avatars import validate_package


def problems(package: Path) -> list[tuple[str, str]]:
    return [(problem.severity, problem.message) for problem in validate_package(package)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "severity", "message"),
    [
        (
            lambda path: set_matrix(write_video(path, range(8)), -1, 0, 0, -1),
            "warning",
            "a.mp4 is shown turned, as its display matrix says; rectangles are in the coordinates"
            " of the picture as it is shown",
        ),
        (
            lambda path: write_video(path, range(8), Fraction(1, 50)),
            "warning",
            "a.mp4 has not 25 frames in each second: by its time stamps 4 of its 8 frames are"
            " shown, as 4 frames at 25 a second; rectangles are counted by the frames of the video",
        ),
        (
            lambda path: write_video(
                path, range(8), options={"x264-params": "interlaced=1", "crf": "5"}
            ),
            "warning",
            "a.mp4 is marked as interlaced and its frames are shown as they are; if moving edges"
            " look like combs, convert it: ffmpeg -i a.mp4 -vf",
        ),
        (
            lambda path: write_video(path, range(8), color_trc=18, color_primaries=9),
            "error",
            "a.mp4 is HDR (HLG); allowed is SDR, so convert it: ffmpeg -i a.mp4 -vf",
        ),
        (
            lambda path: write_video(path, range(8), sample_aspect_ratio=Fraction(2, 1)),
            "error",
            "a.mp4 has pixels of 2:1; allowed are square ones, so convert it: ffmpeg -i a.mp4 -vf",
        ),
    ],
    ids=["turned", "rate", "interlaced", "HDR", "not square"],
)
def test_a_videos_metadata_is_one_line(
    avatar_package: Path,
    tmp_path: Path,
    write: Callable[[Path], Path],
    severity: str,
    message: str,
) -> None:
    package = with_video(avatar_package, write(tmp_path / "a.mp4"), 8)
    ((seen, text),) = problems(package)
    assert seen == severity
    assert text.startswith(message)


def test_damage_of_a_video_is_told(avatar_package: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", range(9), options={"g": "1", "bf": "0"})
    package = with_video(avatar_package, without_middle(video), 6)
    texts = [text for severity, text in problems(package) if severity == "warning"]
    assert "a.mp4 is damaged: 3 of its frames cannot be decoded and are left out" in texts


def test_alpha_of_a_video(avatar_package: Path, tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "a.mov", range(3), codec="prores_ks", pix_fmt="yuva444p10le", options={}
    )
    package = with_video(avatar_package, video, 3)
    assert problems(package) == [("warning", "a.mov has alpha, which is not used")]


def change(package: Path, number: int, with_pixels: Callable[[Any], Any]) -> None:
    path = package / "frames" / f"frame_000{number}.png"
    assert cv2.imwrite(str(path), with_pixels(cv2.imread(str(path))))


def layered(alpha: int) -> Callable[[Any], Any]:
    return lambda pixels: np.dstack([pixels, np.full(pixels.shape[:2], alpha, np.uint8)])


def test_frames_that_are_transparent_are_one_line(avatar_package: Path) -> None:
    change(avatar_package, 0, layered(255))
    assert problems(avatar_package) == []
    for number in (2, 3, 5):
        change(avatar_package, number, layered(100))
    assert problems(avatar_package) == [
        (
            "warning",
            "frames/frame_0002.png and 2 more are transparent in places; their colours are shown"
            " there and alpha is not used",
        )
    ]


def test_frames_of_sixteen_bits(avatar_package: Path) -> None:
    change(avatar_package, 4, lambda pixels: pixels.astype(np.uint16) * 257)
    assert problems(avatar_package) == [
        ("warning", "frames/frame_0004.png is of 16 bits a channel; 8 are used")
    ]


@pytest.mark.parametrize("orientation", [1, 3])
def test_frames_turned_by_exif(avatar_package: Path, orientation: int) -> None:
    for path in (avatar_package / "frames").iterdir():
        path.write_bytes(with_exif(path.read_bytes(), exif(orientation)))
    turned = (
        "warning",
        "frames/frame_0000.png and 7 more are turned as EXIF says; rectangles are in the"
        " coordinates of the picture as it is shown",
    )
    assert problems(avatar_package) == ([] if orientation == 1 else [turned])


def test_a_lying_frame_stands_upright(avatar_package: Path, tmp_path: Path) -> None:
    """Orientation 6: the rectangles of 320x240 do not fit the 240x320 that is shown."""
    path = avatar_package / "frames" / "frame_0000.png"
    shutil.copy(path, tmp_path / "stored.png")
    path.write_bytes(with_exif(path.read_bytes(), exif(6)))
    assert any(
        "all frames have to be as the first, 240x320" in text
        for _, text in problems(avatar_package)
    )
