"""Landmarks of pictures of another size than the frames."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.avatars.importing.conftest import Import
from tests.support.foreignavatars import (
    demo_rectangles,
    listed,
    no_checkpoints,
    write_guide_package,
    write_images,
    write_landmarks,
    write_synctalk,
    write_video_package,
)

from lipwire.avatars.importing.examining import Material, examine
from lipwire.avatars.importing.landmarksize import check_landmarks_size, sampled
from lipwire.avatars.importing.opening import opened_sources
from lipwire.avatars.importing.report import Report
from lipwire.domain import AvatarInvalid, CropRect, InvalidInput, UInt8Array

Frames = list[UInt8Array]


def examined(path: Path, landmarks_size: tuple[int, int] | None = None) -> tuple[Material, Report]:
    report = Report()
    with opened_sources(path) as (source,):
        sized = replace(source, landmarks_size=landmarks_size)
        return examine(sized, no_checkpoints(), report), report


def in_a_corner(frames: Frames, *, moving: bool) -> Frames:
    """The frames in the upper left quarter of larger ones; the rest is noise, the same in each or,
    where it is ``moving``, another one in each."""
    random = np.random.default_rng(1)
    first = random.integers(0, 255, (720, 1280, 3), np.uint8)
    made = []
    for frame in frames:
        whole = random.integers(0, 255, first.shape, np.uint8) if moving else first.copy()
        whole[:360, :640] = frame
        made.append(whole)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("moving", [False, True])
def test_a_small_face_in_the_corner_of_a_large_frame_is_taken(
    frames: Frames, tmp_path: Path, moving: bool
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    shutil.rmtree(source / "full_body_img")
    write_images(source / "full_body_img", in_a_corner(frames, moving=moving), "{}.jpg")
    material, report = examined(source)
    assert list(material.rects) == demo_rectangles()
    assert any("if the face is not there, the landmarks are of smaller" in n for n in report.notes)


@pytest.mark.parametrize("scale", [0.5, 2 / 3])
def test_landmarks_of_a_size_that_is_said_are_scaled(
    frames: Frames, tmp_path: Path, scale: float
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    shutil.rmtree(source / "landmarks")
    write_landmarks(source / "landmarks", demo_rectangles(), scale=scale)
    size = round(640 * scale), round(360 * scale)
    material, report = examined(source, size)
    for made, wanted in zip(material.rects, demo_rectangles(), strict=True):
        assert np.abs(np.subtract(listed([made]), listed([wanted]))).max() <= 1
    assert f"landmarks/: scaled from pictures of {size[0]}x{size[1]} to 640x360" in report.notes


def test_the_frames_own_size_can_be_said(frames: Frames, tmp_path: Path) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    shutil.rmtree(source / "landmarks")
    rects = [CropRect(132 + i, 75, 192 + i, 135) for i in range(6)]  # on the wall
    write_landmarks(source / "landmarks", rects)
    with pytest.raises(AvatarInvalid, match="in no frame anything moves there"):
        examined(source)
    assert list(examined(source, (640, 360))[0].rects) == rects


def test_a_size_is_of_landmarks_alone(frames: Frames, tmp_path: Path) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    with pytest.raises(InvalidInput, match=r"--landmarks-size is for landmarks, and .* crop_rects"):
        examined(source, (640, 360))


@pytest.mark.slow
def test_landmarks_of_a_video_are_looked_at_as_well(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_video_package(tmp_path / "anna", frames)
    shutil.rmtree(source / "cache")
    write_landmarks(source / "landmarks", demo_rectangles(), scale=0.5)
    with pytest.raises(AvatarInvalid, match="landmarks of pictures of another size"):
        imported(source)
    shutil.rmtree(source / "landmarks")
    write_landmarks(source / "landmarks", demo_rectangles())
    package, _ = imported(source)
    assert json.loads((package / "crop_rects.json").read_text()) == listed(demo_rectangles())


def test_what_cannot_be_told_is_taken(frames: Frames) -> None:
    frames = [frame.mean(axis=2).astype(np.uint8) for frame in frames]
    wall = [CropRect(132 + i, 75, 192 + i, 135) for i in range(6)]
    with pytest.raises(AvatarInvalid):
        check_landmarks_size(wall, frames, "landmarks/")
    check_landmarks_size(wall[:1], frames[:1], "landmarks/")  # one frame
    check_landmarks_size(wall[:1] * 6, frames, "landmarks/")  # landmarks that stand still
    check_landmarks_size(wall, frames[:1] * 6, "landmarks/")  # frames that do
    check_landmarks_size(wall, [], "landmarks/")
    lit = [
        np.clip(frame.astype(int) + 4 * i, 0, 255).astype(np.uint8)
        for i, frame in enumerate(frames)
    ]
    check_landmarks_size(wall, lit, "landmarks/")  # the light changes


def test_frames_are_sampled_from_all_of_a_recording() -> None:
    assert sampled(1) == [0]
    assert sampled(3) == [0, 1, 2]
    assert sampled(801) == [100 * number for number in range(9)]
