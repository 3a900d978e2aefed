"""What is in front of the mouth stays, in every form of a frame."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipwire.avatars import Avatar, Part, validate_package
from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.masks import Masks, masks_in
from lipwire.avatars.package import read_package
from lipwire.compose import bgr_to_i420, encode_jpeg, paste_mouth
from lipwire.domain import AvatarInvalid, UInt8Array

ALL: frozenset[Part] = frozenset({"jpeg", "planes", "pixels"})
SIZE = (320, 240)
CHANCE = np.random.default_rng(5)
MOUTH = CHANCE.integers(0, 256, (320, 320, 3), dtype=np.uint8)


def write_mask(package: Path, name: str, pixels: UInt8Array) -> Path:
    path = package / "masks" / name
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def microphone() -> UInt8Array:
    """Black where a microphone is, with a soft rim."""
    mask = np.full((SIZE[1], SIZE[0]), 255, np.uint8)
    cv2.circle(mask, (160, 130), 30, 0, -1)
    return np.asarray(cv2.GaussianBlur(mask, (9, 9), 0), np.uint8)


@pytest.fixture
def masked(make_package: Callable[..., Path], tmp_path: Path) -> Path:
    """Three frames, of which the first has no mask and the others have."""
    package = make_package(tmp_path / "anna", size=SIZE, frames=3)
    write_mask(package, "0001.png", microphone())
    write_mask(package, "frame_0002.png", np.where(microphone() > 127, 255, 0).astype(np.uint8))
    return package


def frame_of(package: Path, number: int) -> UInt8Array:
    return np.asarray(cv2.imread(str(package / "frames" / f"frame_{number:04d}.png")), np.uint8)


def mask_of(package: Path, number: int) -> UInt8Array:
    name = {1: "0001.png", 2: "frame_0002.png"}[number]
    return np.asarray(cv2.imread(str(package / "masks" / name), cv2.IMREAD_GRAYSCALE), np.uint8)


def expected(avatar: Avatar, package: Path, number: int) -> UInt8Array:
    """The frame with the mouth as far as its mask shows it, worked out in floats."""
    plain = frame_of(package, number)
    whole = plain.copy()
    paste_mouth(whole, (0, 0), MOUTH, avatar.rects[number], avatar.border_px)
    if number == 0:
        return whole
    share = mask_of(package, number)[..., None] / 255
    mixed: UInt8Array = np.rint(whole * share + plain * (1 - share)).astype(np.uint8)
    return mixed


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_every_output_keeps_what_is_in_front_of_the_mouth(masked: Path, number: int) -> None:
    with Avatar.open(masked, parts=ALL, quality=60) as avatar:
        wanted = expected(avatar, masked, number)
        shown = avatar.pixels(number, MOUTH)
        assert np.array_equal(shown, wanted)
        assert np.array_equal(avatar.planes(number, MOUTH), bgr_to_i420(wanted))
        # To the byte: of the parts that are kept and the one that is made anew.
        assert avatar.jpeg(number, MOUTH) == encode_jpeg(wanted, 60)
        plain = frame_of(masked, number)
        assert np.array_equal(avatar.pixels(number, None), plain)
        if number:
            kept = mask_of(masked, number) == 0
            assert np.array_equal(shown[kept], plain[kept])
            assert not np.array_equal(shown, plain)


def test_a_mask_changes_what_an_avatar_is_and_none_changes_nothing(
    masked: Path, make_package: Callable[..., Path], tmp_path: Path
) -> None:
    def names(package: Path) -> set[str]:
        with Avatar.open(package, parts=ALL) as avatar:
            found = {path.name for path in (package / ".lipwire").rglob("patches-*")}
            return found | {avatar.revision.frames}

    without = make_package(tmp_path / "without", size=SIZE, frames=3)
    before, with_masks = names(without), names(masked)
    assert not before & with_masks
    write_mask(masked, "0001.png", np.full((SIZE[1], SIZE[0]), 255, np.uint8))
    changed = names(masked)
    assert not changed & with_masks
    for path in (masked / "masks").iterdir():
        path.unlink()
    assert names(masked) == before


def test_what_an_old_version_compiled_without_masks_is_read(
    make_package: Callable[..., Path], tmp_path: Path
) -> None:
    package = make_package(tmp_path / "anna", size=SIZE, frames=2)
    with Avatar.open(package, parts=ALL) as avatar:
        patches = avatar._patches
        assert patches is not None
        assert [patches.mask(number) for number in range(2)] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pixels", "problem"),
    [
        ("0001.png", np.zeros((239, 320), np.uint8), "is 320x239; a mask has to be as large"),
        ("0001.png", np.full((240, 320, 3), (9, 8, 7), np.uint8), "has colours"),
    ],
)
def test_a_mask_that_is_none_is_told(
    masked: Path, name: str, pixels: UInt8Array, problem: str
) -> None:
    write_mask(masked, name, pixels)
    with pytest.raises(AvatarInvalid, match=f"masks/{name} {problem}"):
        Avatar.open(masked, parts=ALL)
    (told,) = [each for each in validate_package(masked) if each.severity == "error"]
    assert problem in told.message
    assert name in told.message


def test_a_damaged_mask_is_told(masked: Path) -> None:
    path = masked / "masks" / "0001.png"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AvatarInvalid, match=r"masks/0001.png is cut off or damaged"):
        Avatar.open(masked)


@pytest.mark.parametrize("name", ["0003.png", "notes.txt", "0001.jpg"])
def test_what_is_of_no_frame_is_not_used(masked: Path, name: str) -> None:
    (masked / "masks" / name).write_bytes(b"")
    warnings = [each.message for each in validate_package(masked) if each.severity == "warning"]
    assert any(f"masks/{name} is not used" in each for each in warnings)
    assert any("masks/ has masks for 2 of 3 frames" in each for each in warnings)
    masks = read_package(masked).masks
    assert masks is not None
    assert sorted(masks.paths) == [1, 2]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: (folder / "mask_0001.png").write_bytes(b""), "are for one frame"),
        (lambda folder: (folder / "0000.png").mkdir(), "masks/0000.png is not a file"),
        (
            lambda folder: (folder / "0000.png").symlink_to("/etc/hostname"),
            "masks/0000.png is a link that leads out",
        ),
    ],
)
def test_what_cannot_be_a_mask_is_refused(
    masked: Path, make: Callable[[Path], object], problem: str
) -> None:
    make(masked / "masks")
    with pytest.raises(AvatarInvalid, match=problem):
        read_package(masked)


def test_masks_that_are_no_folder_are_refused(masked: Path, tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "masks").write_bytes(b"")
    findings = Findings()
    assert masks_in(tmp_path / "file", Pictures(tmp_path, (), tmp_path / "a.mp4"), findings) is None
    assert [each.message for each in findings.problems] == [
        "masks is no folder; it has to be one of PNG images"
    ]


def test_masks_of_a_video_are_counted_from_its_first_frame(tmp_path: Path) -> None:
    for name in ("0.png", "7.png"):
        write_mask(tmp_path, name, np.zeros((2, 2), np.uint8))
    findings = Findings()
    masks = masks_in(tmp_path, Pictures(tmp_path, (), tmp_path / "a.mp4"), findings)
    assert masks == Masks(
        tmp_path, {0: tmp_path / "masks" / "0.png", 7: tmp_path / "masks" / "7.png"}
    )
    assert findings.problems == []
