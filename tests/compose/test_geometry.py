"""The paste geometry against the plain reference formula in OpenCV."""

import cv2
import numpy as np
import pytest

from lipwire.compose import RIM_BYTES, crop_rim, network_crop, paste_mouth
from lipwire.domain import CropRect, InvalidInput, UInt8Array

RECTS = [
    CropRect(20, 30, 200, 210),
    CropRect(0, 0, 177, 203),  # corner, not square
    CropRect(50, 0, 400, 90),  # wider than the network's square
    CropRect(399, 299, 400, 300),  # one pixel
    CropRect(40, 0, 368, 300),
]


@pytest.fixture
def frame() -> UInt8Array:
    return np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)


@pytest.fixture
def mouth() -> UInt8Array:
    return np.random.default_rng(1).integers(0, 256, (320, 320, 3), dtype=np.uint8)


def cubic(pixels: UInt8Array, width: int, height: int) -> UInt8Array:
    return np.asarray(
        cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8
    )


@pytest.mark.parametrize("rect", RECTS, ids=str)
def test_crop_with_border_is_the_inner_320_of_328(frame: UInt8Array, rect: CropRect) -> None:
    expected = cubic(frame[rect.y1 : rect.y2, rect.x1 : rect.x2], 328, 328)[4:324, 4:324]
    crop = network_crop(frame, rect, 4)
    assert np.array_equal(crop, expected)
    assert crop.flags.c_contiguous


@pytest.mark.parametrize("rect", RECTS, ids=str)
def test_crop_without_border_is_the_rectangle_at_320(frame: UInt8Array, rect: CropRect) -> None:
    expected = cubic(frame[rect.y1 : rect.y2, rect.x1 : rect.x2], 320, 320)
    assert np.array_equal(network_crop(frame, rect, 0), expected)


@pytest.mark.parametrize("rect", RECTS, ids=str)
def test_paste_with_border_goes_through_the_328_crop(
    frame: UInt8Array, mouth: UInt8Array, rect: CropRect
) -> None:
    expected = frame.copy()
    crop = cubic(frame[rect.y1 : rect.y2, rect.x1 : rect.x2], 328, 328)
    crop[4:324, 4:324] = mouth
    expected[rect.y1 : rect.y2, rect.x1 : rect.x2] = cubic(crop, rect.width, rect.height)
    given = mouth.copy()
    paste_mouth(frame, (0, 0), mouth, rect, 4)
    assert np.array_equal(frame, expected)
    assert np.array_equal(mouth, given)


@pytest.mark.parametrize("rect", RECTS, ids=str)
def test_a_kept_rim_changes_nothing(frame: UInt8Array, mouth: UInt8Array, rect: CropRect) -> None:
    rim = crop_rim(frame[rect.y1 :, rect.x1 :], rect, (rect.x1, rect.y1))
    assert np.array_equal(rim, crop_rim(frame, rect))
    expected = frame.copy()
    paste_mouth(expected, (0, 0), mouth, rect, 4)
    if rect.width > 1:  # the rim is what is used: another one shows
        other = frame.copy()
        paste_mouth(other, (0, 0), mouth, rect, 4, 255 - rim)
        assert not np.array_equal(other, expected)
    paste_mouth(frame, (0, 0), mouth, rect, 4, rim)
    assert np.array_equal(frame, expected)


def test_a_rim_of_another_length_is_refused(frame: UInt8Array, mouth: UInt8Array) -> None:
    with pytest.raises(InvalidInput, match=f"shape \\(3,\\).*{RIM_BYTES}"):
        paste_mouth(frame, (0, 0), mouth, RECTS[0], 4, np.zeros(3, np.uint8))


@pytest.mark.parametrize("rect", RECTS, ids=str)
def test_paste_without_border_covers_the_rectangle(
    frame: UInt8Array, mouth: UInt8Array, rect: CropRect
) -> None:
    expected = frame.copy()
    expected[rect.y1 : rect.y2, rect.x1 : rect.x2] = cubic(mouth, rect.width, rect.height)
    paste_mouth(frame, (0, 0), mouth, rect, 0)
    assert np.array_equal(frame, expected)


def test_sizes_that_fit_are_not_resampled(mouth: UInt8Array) -> None:
    frame = np.random.default_rng(2).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    before = frame.copy()
    rect = CropRect(10, 20, 338, 348)  # 328x328
    assert np.array_equal(network_crop(frame, rect, 4), frame[24:344, 14:334])
    paste_mouth(frame, (0, 0), mouth, rect, 4)
    before[24:344, 14:334] = mouth
    assert np.array_equal(frame, before)
    inner = CropRect(14, 24, 334, 344)  # 320x320
    assert np.array_equal(network_crop(frame, inner, 0), mouth)


@pytest.mark.parametrize("border_px", [0, 4])
def test_a_patch_gives_what_the_frame_gives(
    frame: UInt8Array, mouth: UInt8Array, border_px: int
) -> None:
    border = 4 if border_px else 0
    rect = CropRect(70, 60, 250, 244)
    patch = frame[48:256, 64:304].copy()
    assert np.array_equal(
        network_crop(patch, rect, border, (64, 48)),  # type: ignore[arg-type]
        network_crop(frame, rect, border),  # type: ignore[arg-type]
    )
    paste_mouth(patch, (64, 48), mouth, rect, border)  # type: ignore[arg-type]
    paste_mouth(frame, (0, 0), mouth, rect, border)  # type: ignore[arg-type]
    assert np.array_equal(patch, frame[48:256, 64:304])


def test_the_networks_own_crop_pasted_back_changes_little() -> None:
    """Resizing up and down again is the only loss, so position and border are right."""
    y, x = np.mgrid[0:300, 0:400]
    frame = np.stack([x * 255 // 400, y * 255 // 300, (x + y) * 255 // 700], axis=2).astype(
        np.uint8
    )
    rect = CropRect(100, 60, 290, 250)
    pasted = frame.copy()
    paste_mouth(pasted, (0, 0), network_crop(frame, rect, 4), rect, 4)
    assert int(np.abs(pasted.astype(int) - frame).max()) <= 2


@pytest.mark.parametrize(
    "rect",
    [
        CropRect(-1, 0, 100, 100),
        CropRect(0, 0, 401, 100),
        CropRect(0, 201, 100, 301),
        CropRect(10, 10, 10, 20),
        CropRect(20, 10, 10, 20),
    ],
    ids=str,
)
def test_a_rectangle_that_is_empty_or_outside_is_refused(
    frame: UInt8Array, mouth: UInt8Array, rect: CropRect
) -> None:
    before = frame.copy()
    with pytest.raises(InvalidInput, match="crop rectangle"):
        network_crop(frame, rect, 4)
    with pytest.raises(InvalidInput, match="crop rectangle"):
        paste_mouth(frame, (0, 0), mouth, rect, 4)
    assert np.array_equal(frame, before)


def test_a_mouth_of_another_shape_is_refused(frame: UInt8Array) -> None:
    with pytest.raises(InvalidInput, match=r"\(328, 328, 3\)"):
        paste_mouth(frame, (0, 0), np.zeros((328, 328, 3), np.uint8), RECTS[0], 4)
    with pytest.raises(InvalidInput, match="int16"):
        paste_mouth(frame, (0, 0), np.zeros((320, 320, 3), np.int16), RECTS[0], 4)
