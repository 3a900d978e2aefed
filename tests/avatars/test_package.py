import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.avatars import read_package, validate_package
from lipwire.domain import AvatarInvalid, NotFound


def refused(package: Path, message: str) -> None:
    with pytest.raises(AvatarInvalid, match=message) as caught:
        read_package(package)
    assert "\n" not in str(caught.value)


def test_reads_the_guides_folder(avatar_package: Path) -> None:
    package = read_package(avatar_package)
    assert package.name == "anna"
    assert [path.name for path in package.pictures.frame_paths] == [
        f"frame_{number:04d}.png" for number in range(8)
    ]
    assert len(package.rects) == 8
    assert package.model_path == avatar_package / "checkpoint" / "model_best.onnx"
    assert package.encoder_path == avatar_package / "checkpoint" / "audio_encoder.onnx"


def test_settings_name_things(avatar_package: Path) -> None:
    encoder = avatar_package / "checkpoint" / "audio_encoder.onnx"
    encoder.rename(avatar_package / "ears.onnx")
    assert read_package(avatar_package).encoder_path is None
    (avatar_package / "avatar.yaml").write_text("name: Anna B.\naudio_encoder: ears.onnx\n")
    package = read_package(avatar_package)
    assert package.name == "Anna B."
    assert package.encoder_path == avatar_package / "ears.onnx"


def test_frames_are_ordered_by_number(avatar_package: Path) -> None:
    frames = avatar_package / "frames"
    for number in range(8):
        (frames / f"frame_{number:04d}.png").rename(frames / f"frame_{number + 5}.png")
    package = read_package(avatar_package)
    assert [path.name for path in package.pictures.frame_paths] == [
        f"frame_{number}.png" for number in range(5, 13)
    ]


def test_a_gap_is_named(avatar_package: Path) -> None:
    (avatar_package / "frames" / "frame_0003.png").unlink()
    refused(avatar_package, "frame 3 is missing: frames/frame_0002.png is followed by frame_0004")


@pytest.mark.parametrize("twin", ["frame_3.png", "frame_0003.jpg", "0003.png"])
def test_two_files_of_one_number_are_refused(avatar_package: Path, twin: str) -> None:
    shutil.copy(avatar_package / "frames" / "frame_0003.png", avatar_package / "frames" / twin)
    refused(avatar_package, "frame 3 is there twice")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoint/model_best.onnx", "checkpoint/model_best.onnx is missing"),
        ("crop_rects.json", "crop_rects.json is missing"),
        ("frames", "no frames: neither frames/frame_0000.png nor source_video.mp4"),
    ],
)
def test_what_is_missing_is_named(avatar_package: Path, name: str, message: str) -> None:
    path = avatar_package / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    refused(avatar_package, message)


def test_an_empty_frames_folder(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / "frames")
    (avatar_package / "frames").mkdir()
    refused(avatar_package, "no frames: frames/ holds no frame_0000.png or .jpg")


def test_fewer_rectangles_than_frames(avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").write_text(json.dumps([[0, 0, 9, 9]] * 7))
    refused(avatar_package, "crop_rects.json has 7 rectangles for 8 frames; each frame needs one")


def test_more_rectangles_than_frames_are_allowed(avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").write_text(json.dumps([[0, 0, 9, 9]] * 9))
    assert len(read_package(avatar_package).rects) == 9


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no such folder"):
        read_package(tmp_path / "nobody")
    with pytest.raises(NotFound):
        read_package(tmp_path / "a\0b")
    with pytest.raises(NotFound):
        read_package(tmp_path / ("x" * 300))


def test_a_file_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "anna").write_text("")
    refused(tmp_path / "anna", "is a file; an avatar package is a folder")


@pytest.mark.parametrize(
    "name", ["../ears.onnx", "/etc/passwd", "a/../../ears.onnx", "C:\\ears.onnx", "..\\ears.onnx"]
)
@pytest.mark.parametrize("key", ["audio_encoder", "source_video"])
def test_paths_do_not_leave_the_package(avatar_package: Path, key: str, name: str) -> None:
    (avatar_package.parent / "ears.onnx").write_text("")
    (avatar_package / "avatar.yaml").write_text(f"{key}: '{name}'\n")
    refused(avatar_package, f"{key} .* leads out of the package")


@pytest.mark.parametrize(
    "name",
    [
        "frames",
        "frames/frame_0003.png",
        "crop_rects.json",
        "checkpoint",
        "checkpoint/model_best.onnx",
        "checkpoint/audio_encoder.onnx",
        "avatar.yaml",
    ],
)
def test_links_do_not_leave_the_package(avatar_package: Path, name: str) -> None:
    (avatar_package / "avatar.yaml").write_text("name: a\n")
    outside = avatar_package.parent / "outside"
    (avatar_package / name).rename(outside)
    (avatar_package / name).symlink_to(outside)
    refused(avatar_package, "is a link that leads out of the package")


def test_links_inside_the_package_are_followed(avatar_package: Path) -> None:
    frame = avatar_package / "frames" / "frame_0003.png"
    frame.unlink()
    frame.symlink_to("frame_0002.png")
    paths = read_package(avatar_package).pictures.frame_paths
    assert paths[3] == paths[2]


def test_a_loop_of_links(avatar_package: Path) -> None:
    frame = avatar_package / "frames" / "frame_0003.png"
    frame.unlink()
    frame.symlink_to("frame_0003.png")
    with pytest.raises(AvatarInvalid):
        read_package(avatar_package)


@pytest.mark.parametrize(
    ("name", "limit_bytes"), [("avatar.yaml", 65_536), ("crop_rects.json", 67_108_864)]
)
def test_files_of_any_size_are_not_read(avatar_package: Path, name: str, limit_bytes: int) -> None:
    with (avatar_package / name).open("wb") as stream:
        stream.truncate(limit_bytes + 1)  # takes no room on the disk
    refused(avatar_package, f"{name} has {limit_bytes + 1} bytes; at most {limit_bytes} are read")


@pytest.mark.parametrize(
    "name",
    ["avatar.yaml", "crop_rects.json", "frames/frame_0003.png", "checkpoint/model_best.onnx"],
)
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_pipes_and_folders_are_no_files(
    avatar_package: Path, name: str, make: Callable[[Path], None]
) -> None:
    (avatar_package / name).unlink(missing_ok=True)
    make(avatar_package / name)
    refused(avatar_package, f"{name} is not a file")


def test_names_cannot_talk_to_the_terminal(avatar_package: Path) -> None:
    (avatar_package / "frames" / "a\n\x1b[31m.png").write_bytes(b"")
    (problem,) = validate_package(avatar_package)
    assert problem.message.startswith(r"frames/a\n\x1b[31m.png is not used")
