import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest

from lipwire.avatars import Avatar, read_package, validate_package
from lipwire.domain import AvatarInvalid, NotFound

PackageFactory = Callable[..., Path]


def messages(package: Path, severity: str = "error") -> list[str]:
    return [p.message for p in validate_package(package) if p.severity == severity]


def write_video(
    path: Path, frames: int, rate: int = 25, size: tuple[int, int] = (320, 240)
) -> None:
    with av.open(str(path), "w") as video:
        stream = video.add_stream("libx264", rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), number * 20, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        video.mux(stream.encode())


def test_a_sound_package_has_no_problems(avatar_package: Path) -> None:
    seen: list[tuple[int, int]] = []
    problems = validate_package(avatar_package, progress=lambda *step: seen.append(step[:2]))
    assert problems == []
    assert seen == [(number, 8) for number in range(1, 9)]


def test_everything_wrong_is_said_at_once(avatar_package: Path) -> None:
    frames = avatar_package / "frames"
    (avatar_package / "avatar.yaml").write_text("fps: 30\nlicense: x\n")
    rects = [[0, 0, 50, 50]] * 8
    rects[1] = [0, 0, 321, 50]
    rects[2] = [-1, 0, 50, 50]
    (avatar_package / "crop_rects.json").write_text(json.dumps(rects))
    data = (frames / "frame_0003.png").read_bytes()
    (frames / "frame_0003.png").write_bytes(data[: len(data) // 2])
    (frames / "frame_0004.png").write_bytes(b"")
    cv2.imwrite(str(frames / "frame_0005.png"), np.zeros((240, 322, 3), np.uint8))
    (avatar_package / "checkpoint" / "model_best.onnx").write_bytes(b"no network")
    (avatar_package / "checkpoint" / "audio_encoder.onnx").write_bytes(b"none either")
    found = messages(avatar_package)
    for number, part in enumerate(
        [
            "avatar.yaml line 1: fps is 30",
            "avatar.yaml line 2: unknown key 'license'; did you mean licence?",
            "model_best.onnx",
            "audio_encoder.onnx",
            "crop_rects.json: frames 1-2: rectangle of frame 1 is [0,0,321,50]; it has to lie"
            " inside the frame of 320x240",
            "frames/frame_0003.png is cut off or damaged",
            "frames/frame_0004.png is empty",
            "frames/frame_0005.png is 322x240; all frames have to be as the first, 320x240",
        ]
    ):
        assert part in found[number]
    assert len(found) == 8
    assert not any("\n" in message for message in found)


def test_reading_raises_the_first(avatar_package: Path) -> None:
    (avatar_package / "avatar.yaml").write_text("fps: 30\n")
    (avatar_package / "crop_rects.json").unlink()
    with pytest.raises(AvatarInvalid) as caught:
        read_package(avatar_package)
    assert str(caught.value) == messages(avatar_package)[0]


def test_one_mistake_in_many_frames_is_one_line(
    make_package: PackageFactory, tmp_path: Path
) -> None:
    package = make_package(tmp_path / "a", frames=30, size=(64, 48))
    for number in (*range(3, 9), 11, *range(20, 30)):
        (package / "frames" / f"frame_{number:04d}.png").write_bytes(b"")
    for number in (12, 14):  # cut off in two places
        path = package / "frames" / f"frame_{number:04d}.png"
        path.write_bytes(path.read_bytes()[: 100 * number])
    for number in (0, 1):
        picture = np.zeros((48, 66 if number else 64, 3), np.uint8)
        cv2.imwrite(str(package / "frames" / f"frame_{number:04d}.png"), picture)
    found = messages(package)
    assert found == [
        "frames/frame_0001.png is 66x48; all frames have to be as the first, 64x48",
        "frames 3-8, 11, 20-29: frames/frame_0003.png is empty; it has to be a PNG or JPEG image",
        "frames 12, 14: frames/frame_0012.png is cut off or damaged after 1200 bytes",
    ]


def test_mistakes_of_every_kind_are_counted(avatar_package: Path) -> None:
    for number in range(8):
        (avatar_package / "frames" / f"frame_{number:04d}.png").write_bytes(
            bytes([65 + number]) * 9
        )
    assert len(messages(avatar_package)) == 8


def test_more_rectangles_than_frames_is_a_warning(avatar_package: Path) -> None:
    (avatar_package / "crop_rects.json").write_text(json.dumps([[0, 0, 9, 9]] * 9))
    assert messages(avatar_package) == []
    assert "9 rectangles for 8 frames" in messages(avatar_package, "warning")[0]


def test_pictures_of_another_name_are_a_warning(avatar_package: Path) -> None:
    (avatar_package / "frames" / "cover.png").write_bytes(b"")
    (avatar_package / "frames" / "Thumbs.db").write_bytes(b"")
    assert messages(avatar_package) == []
    assert messages(avatar_package, "warning") == [
        "frames/cover.png is not used; frames are named frame_0000.png or .jpg"
    ]


def test_a_network_of_other_shapes(avatar_package: Path) -> None:
    shape = [1, 3, 64, 64]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save(model, avatar_package / "checkpoint" / "model_best.onnx")
    assert "320" in messages(avatar_package)[0]


def test_a_network_with_data_outside_its_folder(avatar_package: Path) -> None:
    path = avatar_package / "checkpoint" / "model_best.onnx"
    model = onnx.load(path)
    weight = model.graph.initializer[0]
    (avatar_package / "secret.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    path.write_bytes(model.SerializeToString())
    assert "model's own folder" in messages(avatar_package)[0]


def video_package(package: Path, frames: int, rate: int = 25) -> Path:
    for path in (package / "frames").iterdir():
        path.unlink()
    (package / "frames").rmdir()
    write_video(package / "source_video.mp4", frames, rate)
    return package


def test_a_video_stands_for_the_frames(avatar_package: Path) -> None:
    package = video_package(avatar_package, 8)
    assert validate_package(package) == []
    assert read_package(package).pictures.video_path == package / "source_video.mp4"


def test_a_video_of_another_rate_is_a_warning(avatar_package: Path) -> None:
    package = video_package(avatar_package, 8, rate=30)
    assert messages(package) == []
    assert messages(package, "warning") == [
        "source_video.mp4 has not 25 frames in each second: by its time stamps 7 of its 8 frames"
        " are shown, as 7 frames at 25 a second; rectangles are counted by the frames of the video"
    ]


def test_a_video_with_more_frames_than_rectangles(avatar_package: Path) -> None:
    package = video_package(avatar_package, 9)
    assert messages(package) == [
        "crop_rects.json has 8 rectangles for 9 frames; each frame needs one"
    ]


def test_a_broken_video(avatar_package: Path) -> None:
    package = video_package(avatar_package, 8)
    (package / "source_video.mp4").write_bytes(b"no video at all")
    (message,) = messages(package)
    assert message.startswith("source_video.mp4 cannot be decoded as a video")


def test_a_named_video_goes_before_the_frames(avatar_package: Path) -> None:
    write_video(avatar_package / "anna.mp4", 8)
    (avatar_package / "avatar.yaml").write_text("source_video: anna.mp4\n")
    assert messages(avatar_package) == []
    assert messages(avatar_package, "warning") == [
        "frames/ is not used, since avatar.yaml names a video"
    ]


def test_nothing_there_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        validate_package(tmp_path / "nobody")
    (tmp_path / "file").write_text("")
    assert [p.message for p in validate_package(tmp_path / "file")] == [
        f"{tmp_path / 'file'} is a file; an avatar package is a folder"
    ]


def _in_another_order(package: Path) -> None:
    rects = [[40 + n, 60 - n, 120, 120] for n in range(8)]
    (package / "crop_rects.json").write_text(json.dumps(rects))


def _of_larger_frames(package: Path) -> None:
    rects = [[548 + n, 299, 728 + n, 479] for n in range(8)]
    (package / "crop_rects.json").write_text(json.dumps(rects))


def _quoted(package: Path) -> None:
    (package / "crop_rects.json").write_text(json.dumps([["1", "2", "3", "4"]] * 8))


def _weights_that_are_nan(package: Path) -> None:
    path = package / "checkpoint" / "model_best.onnx"
    model = onnx.load(path)
    values = np.full(model.graph.initializer[0].dims, np.nan, np.float32)
    model.graph.initializer[0].raw_data = values.tobytes()
    path.write_bytes(model.SerializeToString())


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 49012345\n"


def _a_pointer(package: Path) -> None:
    (package / "checkpoint" / "model_best.onnx").write_text(POINTER)


def _pointers_for_frames(package: Path) -> None:
    for path in (package / "frames").iterdir():
        path.write_text(POINTER)


def _a_pointer_for_the_video(package: Path) -> None:
    (video_package(package, 8) / "source_video.mp4").write_text(POINTER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_in_another_order, "crop_rects.json: frames 0-7: rectangle of frame 0 is [40,60,120,120]"),
        (_of_larger_frames, "crop_rects.json: frames 0-7: rectangle of frame 0 is [548,299,728"),
        (_quoted, "crop_rects.json: frames 0-7: rectangle of frame 0 is ['1', '2', '3', '4'];"),
        (_weights_that_are_nan, "hold NaN or infinity (6144 of 140533 numbers)"),
        (_a_pointer, "this is a Git LFS pointer"),
        (_a_pointer_for_the_video, "this is a Git LFS pointer"),
    ],
)
def test_whoever_opens_a_package_is_told_what_validation_tells(
    package_template: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    package = shutil.copytree(package_template, tmp_path / "anna")
    spoil(package)
    (told,) = messages(package)
    assert message in told
    with pytest.raises(AvatarInvalid) as caught:
        Avatar.open(package)
    assert str(caught.value) == told
    assert not list((package / ".lipwire").glob("*-*-*"))


def test_frames_that_were_not_fetched(avatar_package: Path) -> None:
    _pointers_for_frames(avatar_package)
    (told,) = messages(avatar_package)
    assert told.startswith("frames 0-7: frames/frame_0000.png begins with b'vers'; it has to be")
    assert "this is a Git LFS pointer; `git lfs pull` brings it" in told


def test_rectangles_that_are_unusual_are_warnings(avatar_package: Path) -> None:
    rects = [[40, 60, 60, 80]] * 4 + [[40, 60, 160, 230]] * 4
    (avatar_package / "crop_rects.json").write_text(json.dumps(rects))
    assert messages(avatar_package) == []
    assert [warning[:60] for warning in messages(avatar_package, "warning")] == [
        "crop_rects.json: frames 4-7: rectangle of frame 4 is [40,60,",
        "crop_rects.json: frames 0-3: rectangle of frame 0 is [40,60,",
    ]
    Avatar.open(avatar_package).close()


def test_rectangles_as_the_guides_packages_keep_them(avatar_package: Path) -> None:
    rects = json.loads((avatar_package / "crop_rects.json").read_text())
    before = read_package(avatar_package).rects
    kept = {
        str(n): {"rect": [float(number) for number in rect], "original_path": f"frames/{n}.png"}
        for n, rect in enumerate(rects)
    }
    (avatar_package / "crop_rects.json").write_text(json.dumps(kept), encoding="utf-16")
    assert validate_package(avatar_package) == []
    assert read_package(avatar_package).rects == before


def test_a_wrong_key_does_not_hide_the_video(avatar_package: Path) -> None:
    package = video_package(avatar_package, 8)
    (package / "source_video.mp4").rename(package / "anna.mp4")
    (package / "avatar.yaml").write_text("licens: CC0\nsource_video: anna.mp4\n", "utf-16")
    assert messages(package) == ["avatar.yaml line 1: unknown key 'licens'; did you mean licence?"]


def test_paths_with_backslashes_lead_where_they_say(avatar_package: Path) -> None:
    package = video_package(avatar_package, 8)
    (package / "clips").mkdir()
    (package / "source_video.mp4").rename(package / "clips" / "anna.mp4")
    (package / "avatar.yaml").write_text(
        "name: 007\nsource_video: clips\\anna.mp4\n"
        "audio_encoder: 'checkpoint\\audio_encoder.onnx'\n"
    )
    assert validate_package(package) == []
    assert read_package(package).name == "007"
    assert read_package(package).pictures.video_path == package / "clips" / "anna.mp4"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        (".", 0o000, "anna cannot be read; permission denied"),
        (".", 0o644, "anna cannot be read; permission denied"),  # its files can only be listed
        ("frames", 0o000, "frames/ cannot be read; permission denied"),
        ("checkpoint", 0o000, "checkpoint/model_best.onnx cannot be read: permission denied;"),
        ("crop_rects.json", 0o000, "crop_rects.json cannot be read; permission denied"),
        ("avatar.yaml", 0o000, "avatar.yaml cannot be read; permission denied"),
        ("frames/frame_0003.png", 0o000, "frames/frame_0003.png cannot be read"),
    ],
)
def test_what_may_not_be_read_is_said_in_a_line(
    avatar_package: Path, name: str, mode: int, message: str
) -> None:
    (avatar_package / "avatar.yaml").write_text("name: Anna\n")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are root's alone
        package = shutil.copytree(avatar_package, Path(folder) / "anna")
        assert not messages(package)  # and has loaded what it needs
        with as_nobody(Path(folder)):
            (package / name).chmod(mode)
            errors = messages(package)
            (package / name).chmod(0o755)
    (error,) = errors
    assert message in error
    assert "\n" not in error


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """``folder`` is that of a user without rights, who the block runs as where the tests run as
    root; who is not root has none anyway."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("source_video: anna.mp4\ncrop_border: [1\n", ["not YAML"]),
        ("crop_border: [1\nsource_video: anna.mp4\n", ["not YAML"]),
        ('source_video: "anna.mp4\n', ["not YAML"]),  # where the frames are is not known
        ("source_video: [anna.mp4]\n", ["source_video is a list"]),
        ("source_video:\n", ["say source_video: anna.mp4"]),
        ("source_video:\nfps: 30\n", ["fps is 30", "say source_video: anna.mp4"]),
        ("name: 'anna\n", ["not YAML", "say source_video: anna.mp4"]),
    ],
)
def test_broken_settings_bring_no_other_errors(
    make_package: Callable[..., Path], tmp_path: Path, settings: str, told: list[str]
) -> None:
    package = video_package(make_package(tmp_path / "a", frames=8), 8)
    (package / "source_video.mp4").rename(package / "anna.mp4")
    (package / "avatar.yaml").write_text(settings)
    found = [message for message in messages(package) if "avatar.yaml" in message]
    assert len(found) == len(told)
    for message, part in zip(found, told, strict=True):
        assert part in message
