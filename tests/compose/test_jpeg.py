"""JPEG settings: intervals, boxes, and the full encode against plain OpenCV."""

import io

import av
import cv2
import numpy as np
import pytest

from lipwire.compose import encode_jpeg, patch_box, restart_interval
from lipwire.domain import CropRect, InvalidInput


@pytest.mark.parametrize(
    ("width", "interval"),
    [
        (1280, 5),
        (1920, 5),
        (640, 5),
        (720, 5),
        (1080, 4),
        (854, 3),
        (848, 1),  # 53 MCUs, a prime
        (784, 7),  # 49 = 7 * 7
        (16, 1),
        (1, 1),
    ],
)
def test_the_interval_divides_the_row_and_is_short(width: int, interval: int) -> None:
    assert restart_interval(width) == interval
    assert -(-width // 16) % interval == 0


def test_the_box_is_the_smallest_of_whole_segments() -> None:
    assert patch_box(1280, 720, CropRect(543, 233, 723, 413)) == CropRect(480, 224, 800, 416)
    assert patch_box(1280, 720, CropRect(480, 224, 800, 416)) == CropRect(480, 224, 800, 416)
    assert patch_box(1270, 715, CropRect(1200, 700, 1270, 715)) == CropRect(1200, 688, 1270, 715)
    with pytest.raises(InvalidInput, match="outside the frame of 1280x720"):
        patch_box(1280, 720, CropRect(0, 0, 1281, 10))


@pytest.mark.parametrize("quality", [1, 75, 100])
@pytest.mark.parametrize(("width", "height"), [(160, 96), (157, 91), (1, 1)])
def test_the_full_encode_has_the_pixels_of_plain_opencv(
    width: int, height: int, quality: int
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    _, plain = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    ours = np.frombuffer(encode_jpeg(frame, quality), np.uint8)
    expected = cv2.imdecode(plain, cv2.IMREAD_COLOR)
    decoded = cv2.imdecode(ours, cv2.IMREAD_COLOR)
    assert expected is not None
    assert decoded is not None
    assert np.array_equal(decoded, expected)


def test_another_decoder_reads_the_restart_markers() -> None:
    y, x = np.mgrid[0:96, 0:320]
    frame = np.stack([x * 255 // 320, y * 255 // 96, x // 2 + y], axis=2).astype(np.uint8)
    with av.open(io.BytesIO(encode_jpeg(frame, 90)), "r", format="jpeg_pipe") as container:
        (decoded,) = container.decode(video=0)
    assert (decoded.width, decoded.height) == (320, 96)
    difference = np.abs(decoded.to_ndarray(format="bgr24").astype(int) - frame)
    assert float(difference.mean()) < 3


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_a_quality_outside_1_to_100_is_refused(quality: int) -> None:
    with pytest.raises(InvalidInput, match=f"quality is {quality}, allowed are 1-100"):
        encode_jpeg(np.zeros((8, 8, 3), np.uint8), quality)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3), (8, 8, 1)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="the frame is uint8 of shape"):
        encode_jpeg(np.zeros(shape, np.uint8), 75)


def test_a_picture_too_long_for_jpeg_is_refused() -> None:
    with pytest.raises(InvalidInput, match="70000x1"):
        encode_jpeg(np.zeros((1, 70_000, 3), np.uint8), 75)
