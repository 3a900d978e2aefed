"""What cannot be imported is told in one line, and nothing is left behind."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.avatars.importing.conftest import Import
from tests.support.foreignavatars import (
    demo_rectangles,
    listed,
    no_checkpoints,
    write_guide_package,
    write_landmarks,
    write_synctalk,
    write_video_package,
)

from lipwire.avatars.importing.examining import examine
from lipwire.avatars.importing.opening import opened_sources
from lipwire.avatars.importing.report import Report
from lipwire.bench.randomnetworks import write_tiny_audio_encoder
from lipwire.domain import AvatarInvalid, InvalidInput, LipwireError, NotFound, UInt8Array

Frames = list[UInt8Array]
Change = Callable[[Path], object]


def without(name: str) -> Change:
    def change(source: Path) -> None:
        path = source / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def holding(name: str, content: str | bytes) -> Change:
    def change(source: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (source / name).write_bytes(data)

    return change


def with_landmarks(scale: float) -> Change:
    def change(source: Path) -> None:
        shutil.rmtree(source / "landmarks")
        write_landmarks(source / "landmarks", demo_rectangles(), scale=scale)

    return change


def cut_off(name: str, part: float) -> Change:
    def change(source: Path) -> None:
        os.truncate(source / name, int((source / name).stat().st_size * part))

    return change


def pipe(name: str) -> Change:
    def change(source: Path) -> None:
        (source / name).unlink()
        os.mkfifo(source / name)

    return change


def with_encoder_for_network(source: Path) -> None:
    (network,) = source.glob("checkpoint/*/unet.onnx")
    write_tiny_audio_encoder(network, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("landmarks/3.lms"), "landmarks/3.lms is missing; each frame needs its landmarks"),
        (without("landmarks"), "no rectangles"),
        (without("full_body_img"), "no frames|cannot be opened|mp4"),
        (holding("landmarks/2.lms", "1 2\n" * 68), "landmarks/2.lms has 68 points; 110 are needed"),
        (holding("landmarks/2.lms", "1 nan\n" * 110), "landmarks/2.lms line 53 is '1 nan'"),
        (holding("landmarks/2.lms", "5 5\n" * 110), "point 1 is at x 5 and point 31 at 5"),
        (holding("landmarks/2.lms", b"\xff\xfe" * 99), "landmarks/2.lms cannot be read"),
        (with_landmarks(3.0), "landmarks of pictures of another size"),
        (with_landmarks(1.5), "landmarks of pictures of another size; --landmarks-size says which"),
        (with_landmarks(0.5), "anything moves there; they are .* such as 320x180"),
        (with_landmarks(1 / 3), "landmarks of pictures of another size"),
        (pipe("landmarks/2.lms"), "landmarks/2.lms is not a file"),
        (pipe("full_body_img/5.jpg"), None),
        (cut_off("full_body_img/4.jpg", 0.5), "full_body_img/4.jpg is cut off"),
        (holding("full_body_img/7.txt.jpg", b""), None),
        (without("checkpoint"), "has no network"),
        (with_encoder_for_network, "unet.onnx: takes .* that is an audio encoder"),
    ],
)
def test_wrong_data_of_synctalk(
    imported: Import, frames: Frames, tmp_path: Path, change: Change, told: str | None
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    change(source)
    if told is None:
        imported(source)
        return
    with pytest.raises(AvatarInvalid, match=told) as raised:
        imported(source)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "avatars").exists()


def rectangles(change: Callable[[list[list[int]]], object]) -> Change:
    def write(source: Path) -> None:
        (source / "crop_rects.json").write_text(json.dumps(change(listed(demo_rectangles()))))

    return write


def doubled_frame(source: Path) -> None:
    shutil.copyfile(source / "frames" / "frame_0005.png", source / "frames" / "frame_1.png")


def other_size(source: Path) -> None:
    cv2.imwrite(str(source / "frames" / "frame_0004.png"), np.zeros((360, 600, 3), np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rectangles(lambda rects: rects[:-1]), "crop_rects.json has 5 rectangles for 6 images"),
        (
            rectangles(lambda rects: {str(n): rects[n] for n in (0, 1, 2, 4, 5)}),
            "crop_rects.json has no rectangle of frame 3",
        ),
        (rectangles(lambda rects: [[4 * v for v in each] for each in rects]), "has to lie inside"),
        (rectangles(lambda rects: [0, *rects[1:]]), "four integers"),
        (holding("crop_rects.json", "[[1,2,"), "crop_rects.json line 1"),
        (doubled_frame, "frame 1 is there twice, as frame_0001.png and frame_1.png, with diff"),
        (holding("avatar.yaml", "colour_order: grey"), "colour_order is 'grey'"),
        (holding("checkpoint/model_best.onnx", b"no model"), "model_best.onnx"),
        (other_size, "frame_0004.png is 600x360; every frame has to be 640x360|640x360"),
    ],
)
def test_wrong_packages(
    imported: Import, frames: Frames, tmp_path: Path, change: Change, told: str
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    change(source)
    with pytest.raises(AvatarInvalid, match=told) as raised:
        imported(source)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "avatars").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (cut_off("full_body_video.mp4", 0.5), "full_body_video.mp4"),
        (without("cache/crop_rectangles.json"), "no rectangles"),
        (holding("package_info.json", "[]"), "package_info.json holds"),
        (holding("package_info.json", "{"), "package_info.json is no JSON"),
    ],
)
def test_wrong_packages_of_videos(
    imported: Import, frames: Frames, tmp_path: Path, change: Change, told: str
) -> None:
    source = write_video_package(tmp_path / "anna", frames)
    change(source)
    with pytest.raises(AvatarInvalid, match=told):
        imported(source)
    assert not (tmp_path / "avatars").exists()


def test_a_video_that_ends_early_is_told(imported: Import, frames: Frames, tmp_path: Path) -> None:
    source = write_video_package(tmp_path / "anna", frames[:4])
    with pytest.raises(AvatarInvalid, match=r"has 4 frames and package_info.json says 6"):
        imported(source)
    (source / "package_info.json").unlink()
    with pytest.raises(AvatarInvalid, match=r"6 rectangles for full_body_video.mp4, which has 4"):
        imported(source)


def test_links_do_not_bring_in_other_files(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    outside = tmp_path / "private.png"
    shutil.move(source / "frames" / "frame_0002.png", outside)
    (source / "frames" / "frame_0002.png").symlink_to(outside)
    with pytest.raises(AvatarInvalid, match=r"frame_0002.png is a link that leads out"):
        imported(source)


def test_what_is_there_stays(imported: Import, frames: Frames, tmp_path: Path) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    (tmp_path / "avatars" / "anna").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="is there already"):
        imported(source)
    assert not any((tmp_path / "avatars" / "anna").iterdir())


def test_a_source_is_not_written_into(imported: Import, frames: Frames, tmp_path: Path) -> None:
    source = write_guide_package(tmp_path / "avatars" / "anna", frames)
    with pytest.raises(InvalidInput, match="is, holds or is in what is imported"):
        imported(source)


def test_a_package_that_is_interrupted_leaves_nothing(
    imported: Import, frames: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lipwire.avatars.importing.writing.validate_package", interrupt)
    with pytest.raises(KeyboardInterrupt):
        imported(write_guide_package(tmp_path / "anna", frames))
    assert not (tmp_path / "avatars").exists()


def test_a_folder_for_avatars_that_is_none_is_told(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    (tmp_path / "avatars").write_bytes(b"mine")
    with pytest.raises(InvalidInput, match=r"avatars is no folder; an avatar is put into one"):
        imported(source)
    (tmp_path / "avatars").unlink()
    (tmp_path / "avatars").symlink_to("avatars")
    with pytest.raises(InvalidInput, match=r"avatars is a link to nothing; name another"):
        imported(source)


def test_what_is_neither_a_folder_nor_an_archive_is_told(imported: Import, tmp_path: Path) -> None:
    (tmp_path / "anna.rar").write_bytes(b"Rar!")
    with pytest.raises(InvalidInput, match=r"anna.rar is neither a folder nor an archive; read ar"):
        imported(tmp_path / "anna.rar")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(NotFound, match=r"no folder .*loop; there is nothing, or a link to nothing"):
        imported(tmp_path / "loop")


def test_networks_that_were_named_are_looked_at_before_anything_is_written(
    frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    network, encoder = source / "checkpoint/model_best.onnx", source / "models/audio_encoder.onnx"
    for named in ({"model": encoder}, {"audio_encoder": network}):
        with opened_sources(source) as (found,), pytest.raises(LipwireError, match=r"\.onnx"):
            examine(replace(found, **named), no_checkpoints(), Report())  # type: ignore[arg-type]


def test_what_is_not_there_is_told(imported: Import, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no folder .*nowhere"):
        imported(tmp_path / "nowhere")
    with pytest.raises(NotFound, match=r"no archive .*nowhere\.zip"):
        imported(tmp_path / "nowhere.zip")
