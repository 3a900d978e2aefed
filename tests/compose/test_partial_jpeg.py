"""Replaced segments against the full encode of the composited frame."""

import mmap
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.compose import Background, PartialJpeg, encode_jpeg
from lipwire.domain import CropRect, InvalidInput, UInt8Array


def picture(width: int, height: int, seed: int) -> UInt8Array:
    """Smooth and noisy at once, so that segments differ in length."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 9 + 1, width // 9 + 1, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    noisy = smooth.astype(int) + rng.integers(-20, 21, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def decode(jpeg: bytes) -> UInt8Array:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, dtype=np.uint8)


def replaced(frame: UInt8Array, box: CropRect, seed: int) -> tuple[UInt8Array, UInt8Array]:
    """A new patch for a box, and the frame with it."""
    patch = picture(box.width, box.height, seed)
    composited = frame.copy()
    composited[box.y1 : box.y2, box.x1 : box.x2] = patch
    return patch, composited


def assert_same_as_full(frame: UInt8Array, rect: CropRect, quality: int, seed: int) -> None:
    height, width = frame.shape[:2]
    layout = PartialJpeg(width, height, quality)
    background = layout.background(frame, rect)
    assert bytes(background.jpeg) == encode_jpeg(frame, quality)
    box = background.box
    assert box.x1 <= rect.x1 < rect.x2 <= box.x2
    assert box.y1 <= rect.y1 < rect.y2 <= box.y2
    patch, composited = replaced(frame, box, seed)
    partial = layout.encode(background, patch)
    assert partial == encode_jpeg(composited, quality)
    rest = background.without_box()
    assert layout.encode(rest, patch) == partial
    filmed = np.ascontiguousarray(frame[box.y1 : box.y2, box.x1 : box.x2])
    assert layout.encode(rest, filmed) == background.jpeg
    assert len(rest.jpeg) == len(background.jpeg) - int(np.diff(background.row_bounds).sum())
    _, plain = cv2.imencode(".jpg", composited, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert np.array_equal(decode(partial), decode(plain.tobytes()))


@settings(max_examples=examples(150), deadline=None)
@given(data=st.data())
def test_any_rectangle_in_any_frame_equals_the_full_encode(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 420), label="width")
    height = data.draw(st.integers(1, 150), label="height")
    x1 = data.draw(st.integers(0, width - 1), label="x1")
    y1 = data.draw(st.integers(0, height - 1), label="y1")
    x2 = data.draw(st.integers(x1 + 1, width), label="x2")
    y2 = data.draw(st.integers(y1 + 1, height), label="y2")
    quality = data.draw(st.integers(1, 100), label="quality")
    seed = data.draw(st.integers(0, 2**32 - 2), label="seed")
    assert_same_as_full(picture(width, height, seed), CropRect(x1, y1, x2, y2), quality, seed + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "height"),
    [(1280, 720), (1920, 1080), (720, 1280), (1080, 1920), (854, 480), (848, 480), (1366, 767)],
)
def test_every_edge_and_corner_of_the_usual_sizes(width: int, height: int) -> None:
    frame = picture(width, height, 5)
    layout = PartialJpeg(width, height, 75)
    for x in (0, width // 2 - 91, width - 180):
        for y in (0, height // 2 - 88, height - 180):
            background = layout.background(frame, CropRect(x, y, x + 180, y + 180))
            patch, composited = replaced(frame, background.box, x + y)
            assert layout.encode(background, patch) == encode_jpeg(composited, 75), (x, y)


def test_a_rectangle_of_the_whole_frame() -> None:
    assert_same_as_full(picture(333, 77, 1), CropRect(0, 0, 333, 77), 75, 2)


def test_markers_count_on_over_the_whole_frame() -> None:
    """A strict decoder wants RST0, RST1, ... RST7, RST0, ... without a gap."""
    frame = picture(400, 160, 3)
    layout = PartialJpeg(400, 160, 80)
    background = layout.background(frame, CropRect(100, 40, 250, 120))
    patch, _ = replaced(frame, background.box, 4)
    jpeg = np.frombuffer(layout.encode(background, patch), np.uint8)
    at = np.flatnonzero(jpeg[:-1] == 0xFF)
    markers = jpeg[at + 1]
    restarts = markers[(markers >= 0xD0) & (markers <= 0xD7)]
    assert len(restarts) == 25 // 5 * 10 - 1
    assert np.array_equal(restarts, 0xD0 + np.arange(len(restarts)) % 8)


def test_a_background_rebuilt_from_a_mapped_file(tmp_path: Path) -> None:
    frame = picture(640, 360, 7)
    layout = PartialJpeg(640, 360, 75)
    made = layout.background(frame, CropRect(200, 100, 380, 280))
    patch, composited = replaced(frame, made.box, 8)
    path = tmp_path / "background"
    bounds = made.row_bounds.tobytes()
    path.write_bytes(bounds + patch.tobytes() + bytes(made.jpeg))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        behind = len(bounds) + patch.nbytes
        row_bounds = np.frombuffer(view[: len(bounds)], np.int32).reshape(-1, 2)
        pixels = np.frombuffer(view[len(bounds) : behind], np.uint8).reshape(patch.shape)
        expected = encode_jpeg(composited, 75)
        as_view = Background(view[behind:], made.box, row_bounds)
        as_array = Background(np.frombuffer(view[behind:], np.uint8), made.box, row_bounds)
        assert layout.encode(as_view, pixels) == expected
        assert layout.encode(as_array, pixels) == expected
        del as_view, as_array, row_bounds, pixels
        view.release()


def test_a_patch_may_be_a_view_of_a_frame() -> None:
    frame = picture(320, 200, 9)
    layout = PartialJpeg(320, 200, 75)
    background = layout.background(frame, CropRect(90, 50, 200, 150))
    box = background.box
    _, composited = replaced(frame, box, 10)
    view = composited[box.y1 : box.y2, box.x1 : box.x2]
    assert not view.flags.c_contiguous
    assert layout.encode(background, view) == encode_jpeg(composited, 75)


def test_threads_share_a_layout() -> None:
    frame = picture(640, 360, 11)
    layout = PartialJpeg(640, 360, 75)
    background = layout.background(frame, CropRect(200, 100, 380, 280))
    pairs = [replaced(frame, background.box, seed) for seed in range(4)]
    expected = [encode_jpeg(composited, 75) for _, composited in pairs]
    wrong: list[int] = []

    def encode(number: int) -> None:
        made = {layout.encode(background, pairs[number][0]) for _ in range(25)}
        if made != {expected[number]}:
            wrong.append(number)

    threads = [threading.Thread(target=encode, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_does_not_fit_is_refused() -> None:
    layout = PartialJpeg(320, 200, 75)
    frame = picture(320, 200, 12)
    with pytest.raises(InvalidInput, match="the frame is 200x320, this layout is for 320x200"):
        layout.background(frame.transpose(1, 0, 2).copy(), CropRect(0, 0, 10, 10))
    with pytest.raises(InvalidInput, match=r"^the frame is float32 of shape \(200, 320, 3\)"):
        layout.background(frame.astype(np.float32), CropRect(0, 0, 10, 10))
    with pytest.raises(InvalidInput, match="outside"):
        layout.background(frame, CropRect(0, 0, 321, 10))
    background = layout.background(frame, CropRect(90, 50, 200, 150))
    with pytest.raises(InvalidInput, match="patch is uint8 of shape"):
        layout.encode(background, frame)
    with pytest.raises(InvalidInput, match="quality is 0"):
        PartialJpeg(320, 200, 0)
    with pytest.raises(InvalidInput, match="0x200"):
        PartialJpeg(0, 200, 75)


def test_a_layout_says_what_it_is_for() -> None:
    layout = PartialJpeg(320, 200, 75)
    assert (layout.width, layout.height, layout.quality) == (320, 200, 75)
    assert layout.interval * 16 <= 320


def test_a_background_that_lacks_a_row_gives_no_frame() -> None:
    frame = picture(320, 200, 13)
    layout = PartialJpeg(320, 200, 75)
    made = layout.background(frame, CropRect(90, 50, 200, 150))
    patch, _ = replaced(frame, made.box, 14)
    with pytest.raises(ValueError, match="zip"):
        layout.encode(Background(made.jpeg, made.box, made.row_bounds[:-1]), patch)
