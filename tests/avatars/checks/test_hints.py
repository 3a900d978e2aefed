"""What is missing is told with what lies there under another name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.avatars import read_package, validate_package
from lipwire.domain import AvatarInvalid


def refusal(package: Path) -> str:
    """The one error of a package, which whoever opens it is told too."""
    (message,) = [p.message for p in validate_package(package) if p.severity == "error"]
    with pytest.raises(AvatarInvalid) as caught:
        read_package(package)
    assert str(caught.value) == message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "name", ["full_body_video.mp4", "anna.MOV", "talking head.webm", "input.mp4", "recorded.mkv"]
)
def test_a_video_of_another_name(avatar_package: Path, name: str) -> None:
    shutil.rmtree(avatar_package / "frames")
    (avatar_package / name).write_bytes(b"")
    assert refusal(avatar_package) == (
        "no frames: neither frames/frame_0000.png nor source_video.mp4 is there;"
        f" {name} is there: say source_video: {name} in avatar.yaml"
    )


def test_a_video_of_whole_frames_goes_before_crops(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / "frames")
    for name in ("a.mp4", "crops_328_video.mp4", "full_body_video.mp4", "rois_320_video.mp4"):
        (avatar_package / name).write_bytes(b"")
    assert "; full_body_video.mp4 is there" in refusal(avatar_package)
    (avatar_package / "full_body_video.mp4").unlink()
    (avatar_package / "a.mp4").unlink()
    assert refusal(avatar_package).endswith("source_video.mp4 is there")


def test_a_video_that_is_not_where_it_is_said_to_be(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / "frames")
    (avatar_package / "avatar.yaml").write_text("source_video: ana.mp4\n")
    (avatar_package / "anna.mp4").write_bytes(b"")
    assert refusal(avatar_package).endswith(
        "'ana.mp4' is missing; the package needs it; anna.mp4 is there: say source_video: anna.mp4"
        " in avatar.yaml"
    )


def test_frames_that_a_video_was_named_for(avatar_package: Path) -> None:
    (avatar_package / "avatar.yaml").write_text("source_video: ana.mp4\n")
    assert refusal(avatar_package).endswith(
        "; frames/ holds images (8): they are used without source_video"
    )


def test_one_frame_in_the_folder_itself(avatar_package: Path) -> None:
    (avatar_package / "frames" / "frame_0000.png").rename(avatar_package / "0.png")
    shutil.rmtree(avatar_package / "frames")
    assert refusal(avatar_package).endswith(
        "; the folder itself holds images (1): they belong in frames/"
    )


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["full_body_img", "images", "Frames_25fps"])
@pytest.mark.parametrize("pattern", ["frame_{:04}.png", "{}.jpg"])
def test_frames_in_another_folder(avatar_package: Path, folder: str, pattern: str) -> None:
    (avatar_package / folder).mkdir()
    for number, path in enumerate(sorted((avatar_package / "frames").iterdir())):
        path.rename(avatar_package / folder / pattern.format(number))
    hint = f"{folder}/ holds images (8): they belong in frames/"
    assert refusal(avatar_package).endswith(f"no frame_0000.png or .jpg; {hint}")
    (avatar_package / "frames").rmdir()
    assert refusal(avatar_package).endswith(f"is there; {hint}")


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        (["checkpoint/195.onnx"], "checkpoint/195.onnx is there"),
        (["models/generator.onnx", "models/audio_encoder.onnx"], "models/generator.onnx is there"),
        (["anna.onnx"], "anna.onnx is there"),
        (["a/1.onnx", "a/2.onnx", "a/10.onnx"], "a/1.onnx and 2 more are there"),
    ],
)
def test_a_network_of_another_name(avatar_package: Path, there: list[str], hint: str) -> None:
    (avatar_package / "checkpoint" / "model_best.onnx").unlink()
    for name in there:
        (avatar_package / name).parent.mkdir(exist_ok=True)
        (avatar_package / name).write_bytes(b"")
    assert refusal(avatar_package) == (
        "checkpoint/model_best.onnx is missing; the package needs it;"
        f" {hint}: the network has to be checkpoint/model_best.onnx"
    )


def test_a_checkpoint_that_was_not_exported(avatar_package: Path) -> None:
    (avatar_package / "checkpoint" / "model_best.onnx").unlink()
    for epoch in (5, 100, 95):
        (avatar_package / "checkpoint" / f"{epoch}.pth").write_bytes(b"")
    assert refusal(avatar_package).endswith(
        "; checkpoint/100.pth and 2 more are there, which PyTorch reads: lipwire avatar import"
        " converts it"
    )


@pytest.mark.parametrize(
    "name", ["cache/crop_rectangles.json", "rects.json", "crop_rectangles.json", "cache/bbox.json"]
)
def test_rectangles_of_another_name(avatar_package: Path, name: str) -> None:
    (avatar_package / "cache").mkdir()
    (avatar_package / "crop_rects.json").rename(avatar_package / name)
    (avatar_package / "cache" / "frame_metadata.json").write_text("{}")
    assert refusal(avatar_package) == (
        "crop_rects.json is missing; the package needs it;"
        f" {name} is there: the rectangles have to be in crop_rects.json"
    )


def test_landmarks_instead_of_rectangles(avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").unlink()
    (avatar_package / "landmarks").mkdir()
    (avatar_package / "landmarks" / "0.lms").write_text("")
    assert "landmarks/ is there: lipwire avatar import makes" in refusal(avatar_package)


def test_no_audio_encoder_is_a_warning(avatar_package: Path) -> None:
    encoder = avatar_package / "checkpoint" / "audio_encoder.onnx"
    (avatar_package / "models").mkdir()
    encoder.rename(avatar_package / "models" / "audio_encoder.onnx")
    (problem,) = validate_package(avatar_package)
    assert problem.severity == "warning"
    assert problem.message == (
        "no audio encoder: checkpoint/audio_encoder.onnx is missing; rendering needs"
        " --audio-encoder FILE.onnx, the one that the network was trained with;"
        " models/audio_encoder.onnx is there: say audio_encoder: models/audio_encoder.onnx in"
        " avatar.yaml"
    )


def test_an_audio_encoder_that_is_named_and_not_there_is_an_error(avatar_package: Path) -> None:
    (avatar_package / "avatar.yaml").write_text("audio_encoder: checkpoint/ears.onnx\n")
    assert refusal(avatar_package) == (
        "avatar.yaml: audio_encoder 'checkpoint/ears.onnx' is missing; the package needs it;"
        " checkpoint/audio_encoder.onnx is there: say audio_encoder: checkpoint/audio_encoder.onnx"
        " in avatar.yaml"
    )


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("\x1b[31m.mp4", Path.touch),
        ("x" * 200 + ".mp4", Path.touch),
        (".hidden.mp4", Path.touch),
        ("link", lambda path: path.symlink_to("/")),
    ],
)
def test_nothing_unfit_is_named_and_no_link_followed(
    avatar_package: Path, name: str, make: Callable[[Path], None]
) -> None:
    shutil.rmtree(avatar_package / "frames")
    make(avatar_package / name)
    assert refusal(avatar_package).endswith("source_video.mp4 is there")


def test_a_folder_as_the_trainer_leaves_it(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / "checkpoint")
    (avatar_package / "frames").rename(avatar_package / "full_body_img")
    (avatar_package / "crop_rects.json").unlink()
    for name in (
        "checkpoint/anna/95.pth",
        "checkpoint/anna/195.pth",
        "landmarks/0.lms",
        "anna.mp4",
    ):
        (avatar_package / name).parent.mkdir(parents=True, exist_ok=True)
        (avatar_package / name).touch()
    network, frames, rectangles = (
        p.message for p in validate_package(avatar_package) if p.severity == "error"
    )
    assert "; checkpoint/anna/195.pth and 1 more are there, which PyTorch reads" in network
    assert "; full_body_img/ holds images (8)" in frames  # what it was trained on goes first
    assert "; or anna.mp4 is there" in frames
    assert "; landmarks/ is there" in rectangles


def test_a_pickle_of_rectangles(avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").rename(avatar_package / "coords.pkl")
    assert "; coords.pkl is there, a pickle, which is not read" in refusal(avatar_package)


@pytest.mark.parametrize("name", ["checkpoint/model_best.onnx", "crop_rects.json"])
def test_a_link_to_nothing_is_called_so(avatar_package: Path, name: str) -> None:
    (avatar_package / name).unlink()
    (avatar_package / name).symlink_to("gone")
    assert refusal(avatar_package) == (
        f"{name} is a link to something that is not there; the package needs it"
    )


def test_frames_that_are_a_link_to_nothing(avatar_package: Path) -> None:
    shutil.rmtree(avatar_package / "frames")
    (avatar_package / "frames").symlink_to("gone")
    (avatar_package / "source_video.mp4").touch()  # it is not used in their place
    assert refusal(avatar_package) == (
        "frames is a link to something that is not there; the package needs it"
    )


def test_settings_that_are_a_link_to_nothing_are_not_passed_over(avatar_package: Path) -> None:
    (avatar_package / "avatar.yaml").symlink_to("gone")
    assert refusal(avatar_package) == "avatar.yaml cannot be read; no such file or directory"


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda path: path.symlink_to("gone"), "is a link to something that is not there"),
        (Path.mkdir, "is not a file"),
    ],
)
def test_an_audio_encoder_that_is_no_file_is_a_warning(
    avatar_package: Path, make: Callable[[Path], None], seen: str
) -> None:
    encoder = avatar_package / "checkpoint" / "audio_encoder.onnx"
    encoder.unlink()
    make(encoder)
    (problem,) = validate_package(avatar_package)
    assert problem.severity == "warning"
    assert problem.message == (
        f"no audio encoder: checkpoint/audio_encoder.onnx {seen}; rendering needs"
        " --audio-encoder FILE.onnx, the one that the network was trained with"
    )
