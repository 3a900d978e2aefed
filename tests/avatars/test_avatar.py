import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.support.quickfirst import quick_first

from lipwire.avatars import Avatar, FrameObserver, Part
from lipwire.compose import bgr_to_i420, encode_jpeg, network_crop, paste_mouth
from lipwire.domain import CropRect, InvalidInput, Revision, UInt8Array

ALL: frozenset[Part] = frozenset({"jpeg", "planes", "pixels"})
MOUTH = np.random.default_rng(3).integers(0, 256, (320, 320, 3), dtype=np.uint8)


def frame(package: Path, number: int, extension: str = "png") -> UInt8Array:
    pixels = cv2.imread(str(package / "frames" / f"frame_{number:04d}.{extension}"))
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def with_mouth(pixels: UInt8Array, rect: CropRect, border: int, mouth: UInt8Array) -> UInt8Array:
    result = pixels.copy()
    paste_mouth(result, (0, 0), mouth, rect, 0 if border == 0 else 4)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("border", [0, 4])
@pytest.mark.parametrize("order", ["bgr", "rgb"])
@pytest.mark.parametrize(("size", "extension"), [((321, 179), "jpg"), ((320, 240), "png")])
def test_every_output_is_that_of_the_whole_frame(
    make_package: object,
    tmp_path: Path,
    border: int,
    order: str,
    size: tuple[int, int],
    extension: str,
) -> None:
    package = make_package(  # type: ignore[operator]
        tmp_path / "a",
        size=size,
        extension=extension,
        frames=3,
        settings={"crop_border": border, "colour_order": order},
    )
    with Avatar.open(package, parts=ALL, quality=60) as avatar:
        assert (avatar.width, avatar.height, avatar.frame_count) == (*size, 3)
        for number in range(3):
            plain = frame(package, number, extension)
            rect = avatar.rects[number]
            crop = network_crop(plain, rect, 0 if border == 0 else 4)
            mouth = MOUTH if order == "bgr" else MOUTH[..., ::-1]
            expected = with_mouth(plain, rect, border, mouth)
            assert np.array_equal(avatar.crop(number), crop if order == "bgr" else crop[..., ::-1])
            assert np.array_equal(avatar.pixels(number, MOUTH), expected)
            assert np.array_equal(avatar.planes(number, MOUTH), bgr_to_i420(expected))
            assert avatar.jpeg(number, MOUTH) == encode_jpeg(expected, 60)
            assert np.array_equal(avatar.pixels(number, None), plain)
            assert np.array_equal(avatar.planes(number, None), bgr_to_i420(plain))
            assert avatar.jpeg(number, None) == encode_jpeg(plain, 60)


def test_jpegs_are_kept_without_what_the_patches_have(avatar_package: Path) -> None:
    with Avatar.open(avatar_package, parts=frozenset({"jpeg"})) as avatar:
        files = sum(len(avatar.jpeg(number, None)) for number in range(avatar.frame_count))
        with Avatar.open(avatar_package) as patches:
            kept = avatar.mapped_bytes - patches.mapped_bytes
    assert 0 < kept < 0.9 * files


def test_frames_run_back_and_forth(avatar_package: Path) -> None:
    with Avatar.open(avatar_package, parts=frozenset({"pixels"})) as avatar:
        for index, number in [(7, 7), (8, 6), (13, 1), (14, 0), (15, 1), (14 * 10**9 + 3, 3)]:
            assert np.array_equal(avatar.pixels(index, None), frame(avatar_package, number))
        refused: list[tuple[Callable[[], object], str]] = [
            (lambda: avatar.crop(-1), "frame number"),
            (lambda: avatar.look_ahead(-1), "frame number"),
            (lambda: avatar.crops(0, -1), "number of frames"),
            (lambda: avatar.preload(-1), "number of frames"),
        ]
        for call, what in refused:
            with pytest.raises(InvalidInput, match=f"{what} is -1; allowed are 0 and above"):
                call()


def test_written_to_an_array_given(avatar_package: Path) -> None:
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        for method in (avatar.planes, avatar.pixels):
            expected = method(2, MOUTH)
            out = np.empty_like(expected)
            assert method(2, MOUTH, out=out) is out
            assert np.array_equal(out, expected)
            with pytest.raises(InvalidInput, match="out is uint8 of shape"):
                method(2, MOUTH, out=out[1:])


def test_what_is_handed_out_is_the_callers(avatar_package: Path) -> None:
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        for method in (avatar.planes, avatar.pixels):
            first = method(0, None)
            kept = first.copy()
            first[:] = 0
            assert np.array_equal(method(0, None), kept)
        avatar.crop(0)[:] = 0
        assert avatar.crop(0).any()


def test_parts_not_opened_are_refused(avatar_package: Path) -> None:
    with Avatar.open(avatar_package) as avatar:
        for part, method in (
            ("jpeg", avatar.jpeg),
            ("planes", avatar.planes),
            ("pixels", avatar.pixels),
        ):
            with pytest.raises(InvalidInput, match=f"opened without the part {part}"):
                method(0, MOUTH)


@pytest.mark.parametrize(
    "mouth",
    [MOUTH[:319], MOUTH[..., 0], MOUTH.astype(np.float32), np.zeros((0, 0, 3), np.uint8)],
    ids=["short", "grey", "float", "empty"],
)
@pytest.mark.parametrize("order", quick_first(["rgb", "bgr"]))
def test_other_mouths_are_refused(avatar_package: Path, mouth: UInt8Array, order: str) -> None:
    (avatar_package / "avatar.yaml").write_text(f"colour_order: {order}\n")
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        for method in (avatar.jpeg, avatar.planes, avatar.pixels):
            with pytest.raises(InvalidInput):
                method(0, mouth)


def test_closed_is_closed(avatar_package: Path) -> None:
    avatar = Avatar.open(avatar_package, parts=ALL)
    kept = avatar.pixels(0, None)
    with avatar:
        pass
    assert avatar.closed
    avatar.close()
    for call in (
        lambda: avatar.crop(0),
        lambda: avatar.jpeg(0, MOUTH),
        lambda: avatar.planes(0, MOUTH),
        lambda: avatar.pixels(0, MOUTH),
    ):
        with pytest.raises(InvalidInput, match="avatar anna is closed; open it again"):
            call()
    assert np.array_equal(kept, frame(avatar_package, 0))


def test_threads_read_at_once(avatar_package: Path) -> None:
    with Avatar.open(avatar_package, parts=ALL) as avatar:
        expected = [avatar.jpeg(number, MOUTH) for number in range(8)]
        wrong: list[int] = []

        def read(start: int) -> None:
            for step in range(40):
                number = (start + step) % 8
                if avatar.jpeg(number, MOUTH) != expected[number]:
                    wrong.append(number)

        threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def resident_bytes(package: Path) -> int:
    """Of the compiled files of ``package``, what this process has mapped in memory."""
    inside, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            inside = str(package) in line
        elif inside and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no way to look at pages")
def test_preloading_reads_the_frames_into_memory(make_package: object, tmp_path: Path) -> None:
    package = make_package(tmp_path / "a", frames=16)  # type: ignore[operator]
    Avatar.open(package, parts=frozenset({"jpeg"})).close()
    with Avatar.open(package, parts=frozenset({"jpeg"})) as avatar:
        lazy = resident_bytes(package)
        assert avatar.preload(4) == 4
        some = resident_bytes(package)
        assert avatar.preload(1000) == 16
        whole = resident_bytes(package)
        assert lazy < some < whole
        assert whole >= 0.9 * avatar.mapped_bytes
        assert avatar.mapped_bytes > sum(len(avatar.jpeg(i, None)) for i in range(16))
    assert avatar.mapped_bytes == 0
    with pytest.raises(InvalidInput, match="closed"):
        avatar.preload(1)


def revision_of(package: Path, quality: int = 75) -> Revision:
    with Avatar.open(package, parts=frozenset({"jpeg"}), quality=quality) as avatar:
        return avatar.revision


def test_a_copy_is_of_the_same_revision(avatar_package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(avatar_package, tmp_path / "copy")
    shutil.rmtree(copy / ".lipwire", ignore_errors=True)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    assert revision_of(copy, quality=60) == revision_of(avatar_package)


def another_frame(package: Path) -> None:
    cv2.imwrite(str(package / "frames" / "frame_0003.png"), 255 - frame(package, 3))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        another_frame,
        lambda package: shutil.copy(
            package / "frames/frame_0000.png", package / "frames/frame_0001.png"
        ),
        lambda package: (package / "avatar.yaml").write_text("crop_border: 0\n"),
        lambda package: (package / "avatar.yaml").write_text("colour_order: rgb\n"),
        lambda package: (package / "crop_rects.json").write_text(
            (package / "crop_rects.json").read_text().replace("]", " ]", 1)
        ),
    ],
)
def test_another_picture_is_another_revision(
    avatar_package: Path, change: Callable[[Path], object]
) -> None:
    before = revision_of(avatar_package)
    change(avatar_package)
    assert revision_of(avatar_package) != before


def test_each_composed_frame_is_told_with_its_time(avatar_package: Path) -> None:
    told: list[tuple[float, float | None]] = []

    class Heard(FrameObserver):
        def composed(self, seconds: float, jpeg_s: float | None = None) -> None:
            told.append((seconds, jpeg_s))

    with Avatar.open(avatar_package, parts=ALL) as avatar:
        avatar.observer = Heard()
        avatar.jpeg(0, MOUTH)
        avatar.planes(0, MOUTH)
        avatar.pixels(0, MOUTH)
        with pytest.raises(InvalidInput):
            avatar.jpeg(-1, MOUTH)
    (jpeg_s, encoded_s), (planes_s, _), (pixels_s, _) = told
    assert encoded_s is not None
    assert 0 < encoded_s < jpeg_s
    assert min(planes_s, pixels_s) > 0
    assert [encoded for _, encoded in told[1:]] == [None, None]
