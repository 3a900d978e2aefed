"""Raw RGB, and I420 planes against BT.709 computed in floating point."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from lipwire.compose import bgr_to_i420, bgr_to_rgb_bytes, i420_shape, paste_patch_i420
from lipwire.domain import InvalidInput, UInt8Array


def noise(height: int, width: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_raw_rgb_is_the_reversed_channels() -> None:
    frame = noise(5, 7)
    assert bgr_to_rgb_bytes(frame) == frame[..., ::-1].tobytes()


def test_planes_are_bt709_in_limited_range() -> None:
    frame = noise(64, 96)
    planes = bgr_to_i420(frame)
    rgb = frame[..., ::-1].astype(np.float64) / 255
    luma = rgb @ [0.2126, 0.7152, 0.0722]
    assert np.abs(planes[:64] - (16 + 219 * luma)).max() <= 1
    mean = rgb.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
    y = mean @ [0.2126, 0.7152, 0.0722]
    u = 128 + 224 * (mean[..., 2] - y) / 1.8556
    v = 128 + 224 * (mean[..., 0] - y) / 1.5748
    flat = planes.reshape(-1)[64 * 96 :].reshape(2, 32, 48)
    assert np.abs(flat[0] - u).max() <= 1.5
    assert np.abs(flat[1] - v).max() <= 1.5


@pytest.mark.parametrize(
    ("bgr", "yuv"),
    [  # ITU-R BT.709-6: white, black, and the primaries
        ((255, 255, 255), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((0, 0, 255), (63, 102, 240)),
        ((0, 255, 0), (173, 42, 26)),
        ((255, 0, 0), (32, 240, 118)),
    ],
)
def test_known_colours(bgr: tuple[int, int, int], yuv: tuple[int, int, int]) -> None:
    planes = bgr_to_i420(np.full((2, 2, 3), bgr, np.uint8)).reshape(-1)
    assert abs(int(planes[0]) - yuv[0]) <= 1
    assert abs(int(planes[4]) - yuv[1]) <= 1
    assert abs(int(planes[5]) - yuv[2]) <= 1


@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_pasting_a_patch_equals_converting_the_frame(data: st.DataObject) -> None:
    width = data.draw(st.integers(1, 90), label="width")
    height = data.draw(st.integers(1, 90), label="height")
    x1 = 2 * data.draw(st.integers(0, (width - 1) // 2), label="x1 / 2")
    y1 = 2 * data.draw(st.integers(0, (height - 1) // 2), label="y1 / 2")
    x2 = min(width, x1 + 2 * data.draw(st.integers(1, 45), label="half width"))
    y2 = min(height, y1 + 2 * data.draw(st.integers(1, 45), label="half height"))
    frame = noise(height, width)
    composited = frame.copy()
    composited[y1:y2, x1:x2] = noise(y2 - y1, x2 - x1, seed=1)
    planes = bgr_to_i420(frame)
    assert planes.shape == i420_shape(width, height)
    paste_patch_i420(planes, composited[y1:y2, x1:x2], x1, y1)
    assert np.array_equal(planes, bgr_to_i420(composited))


@pytest.mark.parametrize("height", [1, 2, 127, 128, 129, 130, 255, 257, 384])
@pytest.mark.parametrize("width", [1, 64, 65])
def test_a_whole_frame_is_one_large_patch(width: int, height: int) -> None:
    frame = noise(height, width)
    planes = np.zeros(i420_shape(width, height), np.uint8)
    paste_patch_i420(planes, frame, 0, 0)
    assert np.array_equal(bgr_to_i420(frame), planes)


def test_an_odd_frame_repeats_its_last_column_and_row() -> None:
    frame = noise(5, 7)
    even = np.pad(frame, ((0, 1), (0, 1), (0, 0)), mode="edge")
    assert np.array_equal(bgr_to_i420(frame), bgr_to_i420(even))


@pytest.mark.parametrize(
    ("x", "y", "width", "height"),
    [
        (1, 0, 4, 4),
        (0, 3, 4, 4),
        (-2, 0, 4, 4),
        (8, 0, 4, 4),
        (0, 8, 4, 4),
        (0, 0, 3, 4),
        (0, 0, 4, 3),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(x: int, y: int, width: int, height: int) -> None:
    planes = bgr_to_i420(noise(10, 10))
    before = planes.copy()
    with pytest.raises(InvalidInput, match=f"{width}x{height} at|does not fit"):
        paste_patch_i420(planes, noise(height, width), x, y)
    assert np.array_equal(planes, before)


def test_planes_of_another_form_are_refused() -> None:
    with pytest.raises(InvalidInput, match="planes are"):
        paste_patch_i420(np.zeros((16, 10), np.uint8), noise(2, 2), 0, 0)
    with pytest.raises(InvalidInput, match="planes are"):
        paste_patch_i420(np.zeros((15, 20), np.uint8)[:, ::2], noise(2, 2), 0, 0)
