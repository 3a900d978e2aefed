import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.avatars import read_package, validate_package
from lipwire.config.links import HOW
from lipwire.domain import AvatarFiles, AvatarInvalid, InvalidInput, NotFound


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


@pytest.mark.slow
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


def test_one_mistake_in_many_files_is_one_line(avatar_package: Path) -> None:
    frames = avatar_package / "frames"
    for number in (1, 2, 3, 6):
        path = frames / f"frame_{number:04d}.png"
        outside = avatar_package.parent / f"{number}.png"
        path.rename(outside)
        path.symlink_to(outside)
    for number in (0, 4, 5):
        shutil.copy(frames / f"frame_{number:04d}.png", frames / f"{number}.jpg")
    errors = [p.message for p in validate_package(avatar_package) if p.severity == "error"]
    assert errors == [
        "frames 0, 4-5: frame 0 is there twice, as 0.jpg and frame_0000.png; one has to go",
        "frames 1-3, 6: frames/frame_0001.png is a link that leads out of the package; " + HOW,
    ]
    refused(avatar_package, "^frames 0, 4-5: frame 0 is there twice")


@pytest.fixture
def apart(avatar_package: Path, tmp_path: Path) -> AvatarFiles:
    """A package's files under names of their own, each in another folder."""
    files = AvatarFiles(
        model=tmp_path / "m" / "best.onnx",
        frames=tmp_path / "f" / "of anna",
        rectangles=tmp_path / "r" / "anna.json",
        audio_encoder=tmp_path / "e" / "encoder.onnx",
    )
    for path, name in zip(
        files.named,
        (
            "checkpoint/model_best.onnx",
            "frames",
            "crop_rects.json",
            "checkpoint/audio_encoder.onnx",
        ),
        strict=True,
    ):
        path.parent.mkdir()
        (avatar_package / name).rename(path)
    return files


def test_files_that_lie_apart_are_one_avatar(apart: AvatarFiles) -> None:
    package = read_package(apart)
    assert package.model_path == apart.model
    assert package.encoder_path == apart.audio_encoder
    assert package.rects_path == apart.rectangles
    assert package.pictures.label(1) == "of anna/frame_0001.png"
    assert len(package.rects) == len(package.pictures.frame_paths) == 8


def test_either_half_is_enough_for_who_needs_no_more(apart: AvatarFiles, tmp_path: Path) -> None:
    alone = AvatarFiles(model=apart.model)
    package = read_package(alone, frozenset({"model"}))
    assert package.frames is None
    with pytest.raises(AvatarInvalid, match=r"has no frames here$"):
        _ = package.pictures
    with pytest.raises(AvatarInvalid, match=r"^no frames: neither frames/frame_0000\.png nor"):
        read_package(alone)
    assert apart.rectangles is not None
    shown = AvatarFiles(frames=apart.frames, rectangles=apart.rectangles)
    package = read_package(shown, frozenset({"frames"}))
    assert package.model is None
    with pytest.raises(AvatarInvalid, match=r"has no network here$"):
        _ = package.model_path
    with pytest.raises(AvatarInvalid, match=r"^checkpoint/model_best\.onnx is missing"):
        read_package(shown)
    apart.rectangles.write_text("{")
    with pytest.raises(AvatarInvalid, match=r"^crop_rects\.json line 1"):
        read_package(shown, frozenset({"frames"}))


def test_what_is_not_named_is_found_in_the_folders_of_what_is(avatar_package: Path) -> None:
    whole = read_package(avatar_package)
    for files in (
        AvatarFiles(model=avatar_package / "checkpoint" / "model_best.onnx"),
        AvatarFiles(frames=avatar_package / "frames"),
        AvatarFiles(rectangles=avatar_package / "crop_rects.json"),
    ):
        package = read_package(files)
        assert (package.model, package.frames) == (whole.model, whole.frames)
        assert package.encoder_path == whole.encoder_path
        assert files.key == "", "it shares the compiled form with the package"
    (avatar_package / "avatar.yaml").write_text("crop_border: 0\nname: Anna B.\n")
    package = read_package(AvatarFiles(frames=avatar_package / "frames"))
    assert (package.settings.crop_border, package.name) == (0, "Anna B.")


@pytest.mark.parametrize("name", ["model", "frames", "rectangles", "audio_encoder"])
def test_a_file_that_is_named_has_to_be_there(apart: AvatarFiles, name: str) -> None:
    path = getattr(apart, name)
    path.rename(path.with_name("away"))
    with pytest.raises(AvatarInvalid, match=rf"^{re.escape(str(path))} is not there$"):
        read_package(apart)


def test_a_video_may_be_named_for_the_frames(avatar_package: Path, tmp_path: Path) -> None:
    video = tmp_path / "clip.mkv"
    video.touch()
    package = read_package(AvatarFiles(folder=avatar_package, frames=video))
    assert package.pictures.video_path == video
    assert package.model_path == avatar_package / "checkpoint" / "model_best.onnx"


def test_nothing_is_no_avatar() -> None:
    with pytest.raises(InvalidInput, match="an avatar of no files"):
        AvatarFiles(audio_encoder=Path("/e.onnx"))
