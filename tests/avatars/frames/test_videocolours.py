"""Every number that a video can say of its colours: shown as OpenCV does, or refused."""

import shlex
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import cv2
import numpy as np
import pytest
from tests.avatars.videos import write_video

from lipwire.avatars.frames.videocolours import conversion
from lipwire.avatars.frames.videoframes import Turn, VideoFrame, opened_video
from lipwire.domain import AvatarInvalid, UInt8Array

REFUSED = {
    "color_primaries": {8: "film", 9: "BT.2020", 10: "SMPTE 428", 11: "DCI-P3", 12: "Display P3"},
    "color_trc": {9: "logarithm to 100:1", 10: "logarithm to 316:1", 16: "PQ", 18: "HLG"},
    "colorspace": {
        8: "YCgCo",
        10: "constant luminance",
        11: "SMPTE 2085",
        12: "follows from the primaries",
        13: "follows from the primaries",
        14: "ICtCp",
    },
}
REFUSED_IN_MATROSKA = {  # H.264, and MP4 with it, has no such numbers
    "color_primaries": {22: "EBU 3213"},
    "colorspace": {15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"},
}
WITHOUT_COMMAND = (11, 14, 15, 16, 17)
NUMBERS = [
    *(("color_primaries", number) for number in (*range(13), 22)),
    *(("color_trc", number) for number in range(19)),
    *(("colorspace", number) for number in range(18)),
]


def colour(what: str, number: int) -> dict[str, Any]:
    """An argument of ``write_video``."""
    return {what: number}


def colourful() -> UInt8Array:
    small = np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    large = cv2.resize(small, (96, 64), interpolation=cv2.INTER_NEAREST)
    return np.asarray(large, np.uint8)


def first_frame(path: Path) -> UInt8Array:
    with opened_video(path) as video:
        return next(video.frames()).pixels()


@pytest.mark.slow
@pytest.mark.parametrize(("what", "number"), NUMBERS)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_are_those_of_opencv_or_refused(
    tmp_path: Path, what: str, number: int, suffix: str
) -> None:
    path = write_video(
        tmp_path / f"a{suffix}", range(2), frames=[colourful()] * 2, **colour(what, number)
    )
    refused = dict(REFUSED[what])
    if suffix == ".mkv":
        refused |= REFUSED_IN_MATROSKA.get(what, {})
    if number in refused:
        with pytest.raises(AvatarInvalid) as caught:
            first_frame(path)
        assert refused[number] in str(caught.value)
        assert "; allowed " in str(caught.value)
        has_command = what != "colorspace" or number not in WITHOUT_COMMAND
        assert ("ffmpeg -i" in str(caught.value)) == has_command
        return
    read, frame = cv2.VideoCapture(str(path)).read()
    assert read
    assert np.array_equal(first_frame(path), frame)


def test_colours_that_change_on_the_way_are_refused_there(tmp_path: Path) -> None:
    pictures = [colourful()] * 3
    parts = [
        write_video(tmp_path / f"{number}.h264", range(3), frames=pictures, color_primaries=number)
        for number in (1, 12)
    ]
    path = tmp_path / "a.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with opened_video(path) as video:
        frames = video.frames()
        next(frames).pixels()
        with pytest.raises(AvatarInvalid, match="Display P3"):
            list(frames)


class Unconvertible:
    """A decoded frame of which FFmpeg makes no BGR."""

    pts = dts = 0
    key_frame = True
    interlaced_frame = False
    format = type("Format", (), {"name": "strange"})

    def reformat(self, **_how: object) -> None:
        raise OSError(95, "Operation not supported")


def test_pixels_that_cannot_be_converted_are_one_line() -> None:
    turn = Turn(transpose=False, flip_x=False, flip_y=False)
    frame = VideoFrame(Unconvertible(), 0, turn, "a.mp4")  # type: ignore[arg-type]
    with pytest.raises(AvatarInvalid, match=r"a\.mp4 has pixels of the format strange.*ffmpeg -i"):
        frame.pixels()


def test_a_command_quotes_the_name() -> None:
    assert "-i 'my face.mp4' " in conversion("my face.mp4", "null")


def has_zscale() -> bool:
    if (ffmpeg := which("ffmpeg")) is None:
        return False
    filters = subprocess.run([ffmpeg, "-filters"], capture_output=True, text=True, check=False)
    return " zscale " in filters.stdout


@pytest.mark.slow
@pytest.mark.skipif(not has_zscale(), reason="needs FFmpeg with zscale")
@pytest.mark.parametrize(
    ("what", "number"),
    [
        (what, number)
        for what in REFUSED
        for number in REFUSED[what]
        if what != "colorspace" or number not in WITHOUT_COMMAND
    ],
)
def test_the_command_converts_the_video(tmp_path: Path, what: str, number: int) -> None:
    path = write_video(
        tmp_path / "my a.mp4", range(2), frames=[colourful()] * 2, **colour(what, number)
    )
    with pytest.raises(AvatarInvalid) as caught:
        first_frame(path)
    command = shlex.split(str(caught.value).partition("convert it: ")[2])
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert first_frame(tmp_path / "converted.mp4").shape == (64, 96, 3)
