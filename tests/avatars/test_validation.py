import json
from pathlib import Path

import av
import cv2
import numpy as np
import onnx
import pytest

from lipwire.avatars import read_package, validate_package
from lipwire.domain import AvatarInvalid, NotFound


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
            "avatar.yaml line 2: unknown key 'license'; did you mean licence?",
            "avatar.yaml line 1: fps is 30",
            "model_best.onnx",
            "audio_encoder.onnx",
            "rectangle of frames/frame_0001.png is [0,0,321,50]; it has to lie inside the frame"
            " of 320x240",
            "rectangle of frames/frame_0002.png is [-1,0,50,50]",
            "frames/frame_0003.png is cut off or damaged",
            "frames/frame_0004.png is empty",
            "frames/frame_0005.png is 322x240; all frames have to be as the first, 320x240",
        ]
    ):
        assert part in found[number]
    assert len(found) == 9
    assert not any("\n" in message for message in found)


def test_reading_raises_the_first(avatar_package: Path) -> None:
    (avatar_package / "avatar.yaml").write_text("fps: 30\n")
    (avatar_package / "crop_rects.json").unlink()
    with pytest.raises(AvatarInvalid) as caught:
        read_package(avatar_package)
    assert str(caught.value) == messages(avatar_package)[0]


def test_many_broken_frames_are_counted(make_package: object, tmp_path: Path) -> None:
    package = make_package(tmp_path / "a", frames=30, size=(64, 48))  # type: ignore[operator]
    for path in (package / "frames").iterdir():
        path.write_bytes(b"")
    found = messages(package)
    assert len(found) == 21
    assert found[-1] == "10 more frames are wrong; 30 of 30"


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
    assert "30 frames a second; it is shown at 25" in messages(package, "warning")[0]


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
