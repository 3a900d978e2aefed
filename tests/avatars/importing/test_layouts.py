"""Each layout gives the avatar that a person makes of the same frames by hand."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.avatars.importing.conftest import Import
from tests.support.foreignavatars import (
    COUNT,
    assert_same_frames,
    demo_rectangles,
    listed,
    spoken,
    spoken_by_hand,
    write_guide_package,
    write_images,
    write_landmarks,
    write_networks,
    write_own_package,
    write_synctalk,
    write_video_package,
)

from lipwire.avatars.importing.layouts import recognised
from lipwire.avatars.importing.opening import opened_sources
from lipwire.domain import AvatarInvalid, UInt8Array

Frames = list[UInt8Array]


def digest(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_synctalks_data_becomes_the_package_that_is_made_by_hand(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    before = digest(source)
    package, report = imported(source)
    assert_same_frames(package, spoken(write_own_package(tmp_path / "hand", frames, ".jpg")))
    assert json.loads((package / "crop_rects.json").read_text()) == listed(demo_rectangles())
    assert [row.part for row in report.rows] == [
        "layout",
        "frames",
        "rectangles",
        "network",
        "audio encoder",
    ]
    assert "full_body_img/: 6 of 640x360, 0.jpg to 5.jpg" in report.rows[1].found
    assert digest(source) == before


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "fractions"])
def test_landmarks_are_cut_to_integers(
    imported: Import, frames: Frames, tmp_path: Path, whole: bool
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    if whole:
        for path in (source / "landmarks").iterdir():
            rows = [line.split() for line in path.read_text().splitlines()]
            path.write_text("".join(f"{float(x):.0f} {float(y):.0f}\r\n" for x, y in rows))
    package, _ = imported(source)
    wanted = [
        # 0.4 and 0.2 are rounded away, 0.7 is rounded up and cut away.
        [x1, y1, x2 + whole, y2 + whole]
        for x1, y1, x2, y2 in listed(demo_rectangles())
    ]
    assert json.loads((package / "crop_rects.json").read_text()) == wanted


def by_number(rects: list[list[int]]) -> object:
    return {str(number): rect for number, rect in enumerate(rects)}


def by_image(rects: list[list[int]]) -> object:
    return {f"frames/frame_{number:04d}.png": rect for number, rect in enumerate(rects)}


def with_rect(rects: list[list[int]]) -> object:
    return {str(n): {"rect": rect, "original_path": f"{n}.jpg"} for n, rect in enumerate(rects)}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["crop_rects.json", "cache/crop_rectangles.json"])
@pytest.mark.parametrize("form", [list, by_number, by_image, with_rect])
def test_the_guides_packages_become_the_one_that_is_made_by_hand(
    imported: Import,
    frames: Frames,
    tmp_path: Path,
    place: str,
    form: Callable[[list[list[int]]], object],
) -> None:
    source = write_guide_package(tmp_path / "sanders", frames)
    (source / "crop_rects.json").unlink()
    (source / place).parent.mkdir(exist_ok=True)
    (source / place).write_text(json.dumps(form(listed(demo_rectangles()))))
    package, report = imported(source)
    hand = write_own_package(tmp_path / "hand", frames)
    for name in ("crop_rects.json", "checkpoint/model_best.onnx", "frames/frame_0005.png"):
        wanted, made = (hand / name).read_bytes(), (package / name).read_bytes()
        assert made.strip() == wanted.strip()
    assert report.rows[2].found == f"{place}: {COUNT}, 120 pixels wide"


@pytest.mark.slow
def test_the_guides_frames_are_those_of_the_package_made_by_hand(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    package, _ = imported(write_guide_package(tmp_path / "sanders", frames))
    assert_same_frames(package, spoken_by_hand())


@pytest.mark.slow
def test_a_package_of_videos_becomes_the_one_that_is_made_by_hand(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_video_package(tmp_path / "sanders", frames)
    package, report = imported(source)
    hand = write_own_package(tmp_path / "hand", frames)
    shutil.rmtree(hand / "frames")
    shutil.copyfile(source / "full_body_video.mp4", hand / "source_video.mp4")
    assert_same_frames(package, spoken(hand))
    assert "package_info.json: mp4_video_package 2.0" in [row.found for row in report.rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "first"),
    [("{}.jpg", 1), ("img-{:08d}.png", 0), ("anna_2_take 3_{:05d}.jpeg", 17), ("{}_full.PNG", 0)],
)
def test_frames_have_any_pattern_of_numbers(
    imported: Import, frames: Frames, tmp_path: Path, pattern: str, first: int
) -> None:
    source = tmp_path / "anna"
    write_images(source / "images", frames, pattern, first)
    (source / "images" / "poster.png").write_bytes(b"not looked at")
    (source / "crop_rects.json").write_text(json.dumps(listed(demo_rectangles())))
    write_networks(source, "model.onnx", None)
    package, report = imported(source)
    suffix = Path(pattern).suffix.lower()
    for number in range(COUNT):
        made = (package / "frames" / f"frame_{number:04d}{suffix}").read_bytes()
        assert made == (source / "images" / pattern.format(number + first)).read_bytes()
    assert "images/poster.png not used: named in another way" in report.notes
    assert any("no audio encoder" in note for note in report.notes)


def test_rectangles_go_with_the_numbers_of_images_where_some_are_missing(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    (source / "frames" / "frame_0002.png").unlink()
    package, report = imported(source)
    rects = listed(demo_rectangles())
    assert json.loads((package / "crop_rects.json").read_text()) == rects[:2] + rects[3:]
    made = (package / "frames" / "frame_0002.png").read_bytes()
    assert made == (source / "frames" / "frame_0003.png").read_bytes()
    assert any("frame 2 missing" in note for note in report.notes)
    assert any("rectangle for each missing image" in line for line in report.assumed)


def test_keys_and_images_may_count_from_different_numbers(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    shutil.rmtree(source / "frames")
    write_images(source / "frames", frames, "{}.png", 1)
    (source / "crop_rects.json").write_text(json.dumps(by_number(listed(demo_rectangles()))))
    package, report = imported(source)
    assert json.loads((package / "crop_rects.json").read_text()) == listed(demo_rectangles())
    assert "frame 0 in crop_rects.json is the image of number 1" in report.assumed


def test_a_frame_that_is_there_twice_is_told(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_guide_package(tmp_path / "anna", frames)
    cv2.imwrite(str(source / "frames" / "frame_0003.jpg"), frames[3])
    package, report = imported(source)
    assert not (package / "frames" / "frame_0003.jpg").exists()
    assert any("frame 3 twice there, as the same pictures" in note for note in report.notes)


@pytest.mark.slow
def test_the_same_pictures_as_images_and_video_are_told(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_video_package(tmp_path / "anna", frames)
    write_images(source / "full_body_img", frames, "{}.jpg")
    package, report = imported(source)
    assert (package / "frames" / "frame_0005.jpg").exists()
    assert not (package / "source_video.mp4").exists()
    assert any("full_body_video.mp4 shows the same pictures" in note for note in report.notes)


def test_a_package_of_lipwire_keeps_its_settings(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_own_package(tmp_path / "anna", frames)
    said = "name: Ännchen\nlicence: CC0\nconsent: 'yes: given'\ncrop_border: 0\nclosed_eyes: [1-2]"
    (source / "avatar.yaml").write_text(said, "utf-8")
    package, report = imported(source)
    written = (package / "avatar.yaml").read_text("utf-8")
    for line in ("name: Ännchen", "licence: CC0", "crop_border: 0", "- 1-2", "'yes: given'"):
        assert line in written
    assert not any("crop_border" in line for line in report.assumed)


def test_squares_of_landmarks_end_where_the_picture_ends(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    for path in (source / "full_body_img").iterdir():
        picture = cv2.imread(str(path))
        assert picture is not None
        cv2.imwrite(str(path), picture[: demo_rectangles()[0].y2 - 10])
    package, report = imported(source)
    made = json.loads((package / "crop_rects.json").read_text())
    assert made[0] == [*listed(demo_rectangles())[0][:3], demo_rectangles()[0].y2 - 10]
    assert any("reaches below the picture" in note for note in report.notes)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("full_imgs/0.png", "face_imgs/0.png", "coords.pkl"), "Wav2Lip.*y1, y2, x1, x2"),
        (("full_imgs/0.png", "coords.pkl", "ultralight.pth"), "160 pixels that hears hubert"),
        (("full_imgs/0.png", "coords.pkl", "latents.pt"), "MuseTalk"),
        (("full_body_img/0.jpg", "landmarks/0.lms", "aud_hu.npy"), "hear hubert features"),
        (("full_body_img/0.jpg", "landmarks/0.lms", "aud_wenet.npy"), "hear wenet features"),
        (("holiday.jpg",), "no avatar that is known: .* is looked for$"),
        (("a/avatar.yaml", "b/x.txt", "c/avatar.yaml"), "; 'a' and 1 more in it would be: name"),
    ],
)
def test_folders_of_others_are_named_as_what_they_are(
    tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(AvatarInvalid, match=told):
        recognised(tmp_path, "anna")


@pytest.mark.slow
def test_landmarks_are_of_every_frame_of_a_video(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_video_package(tmp_path / "anna", frames)
    shutil.rmtree(source / "cache")
    write_landmarks(source / "landmarks", demo_rectangles())
    package, _ = imported(source)
    assert json.loads((package / "crop_rects.json").read_text()) == listed(demo_rectangles())


def test_landmarks_of_frames_that_are_not_there_are_told(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    (source / "full_body_img" / "5.jpg").unlink()
    _, report = imported(source)
    assert "landmarks/ has landmarks of frames that are not there: 1" in report.notes


def test_landmarks_and_images_may_count_from_different_numbers(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    shutil.rmtree(source / "full_body_img")
    write_images(source / "full_body_img", frames, "{}.jpg", 1)
    package, report = imported(source)
    assert json.loads((package / "crop_rects.json").read_text()) == listed(demo_rectangles())
    assert "landmarks/0.lms is of the image of number 1" in report.assumed


def test_an_avatar_has_the_name_of_the_link_that_was_named(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    (tmp_path / "zoe").symlink_to(write_guide_package(tmp_path / "anna", frames))
    package, _ = imported(tmp_path / "zoe")
    assert package.name == "zoe"


def test_maps_of_the_parts_of_a_face_are_told_as_not_used(
    imported: Import, frames: Frames, tmp_path: Path
) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    write_images(source / "parsing", frames, "{}.png")
    _, report = imported(source)
    assert any(note.startswith("parsing/ is not used") for note in report.notes)


def test_masks_go_with_their_frames(imported: Import, frames: Frames, tmp_path: Path) -> None:
    source = write_synctalk(tmp_path / "anna", frames)
    (source / "full_body_img" / "1.jpg").unlink()  # the others are counted anew
    (source / "landmarks" / "1.lms").unlink()
    height, width = frames[0].shape[:2]
    masks = [np.full((height, width), 40 * number, np.uint8) for number in range(6)]
    write_images(source / "masks", masks, "{}.png")
    package, report = imported(source)
    assert {row.part: row.found for row in report.rows}["masks"] == "masks/: 5"
    assert "masks/: 1 of 6 not used: no PNG, or of no frame" in report.notes
    kept = sorted((package / "masks").iterdir())
    assert [path.name for path in kept] == [f"{number:04d}.png" for number in range(5)]
    shades = [int(np.asarray(cv2.imread(str(path)))[0, 0, 0]) for path in kept]
    assert shades == [0, 80, 120, 160, 200]


def test_everybody_in_synctalks_own_tree_is_taken(frames: Frames, tmp_path: Path) -> None:
    for name in ("Zoe", "May"):
        write_synctalk(tmp_path / "SyncTalk_2D" / "dataset" / name, frames)
    (tmp_path / "SyncTalk_2D" / "checkpoint" / "May").mkdir(parents=True)
    (tmp_path / "SyncTalk_2D" / "inference_328.py").write_text("")
    with opened_sources(tmp_path / "SyncTalk_2D") as sources:
        assert [source.name for source in sources] == ["May", "Zoe"]
        assert sources[0].beside == (tmp_path / "SyncTalk_2D" / "checkpoint" / "May",)
        assert sources[1].beside == ()
