"""JPEG settings, and the full encode.

Every JPEG here is baseline, 4:2:0, with the standard Huffman tables and a restart interval that
divides the row of MCUs (16x16 pixels at 4:2:0; ITU-T T.81, A.2 and B.2.4.4). The restart interval
is what lets ``partial_jpeg`` replace a part of a picture; it changes no pixel.
"""

from typing import Final

import cv2
import numpy as np

from lipwire.compose.geometry import check_pixels, check_rect
from lipwire.domain import CropRect, InvalidInput, UInt8Array

MCU_PX: Final = 16
"""Side of a minimum coded unit at 4:2:0."""

MAX_JPEG_PX: Final = 65_500
"""Longest side that libjpeg takes (JPEG_MAX_DIMENSION)."""

_LARGEST_COMMON_INTERVAL: Final = 5
_LARGEST_RARE_INTERVAL: Final = 11


def restart_interval(width: int) -> int:
    """MCUs between two restart markers, for frames ``width`` pixels wide.

    Short intervals make small patches: a rectangle of 180 pixels needs 15 or 16 MCUs of a row
    when the interval is 5 and 19 when it is 10. Long ones make small files: on a 720p picture of
    87 kB the markers and the prediction they break cost 12.8 % at 1, 6.4 % at 2, 2.6 % at 5, 1.3
    % at 10. So: the largest divisor of the row up to 5 (1280 and 1920 wide: 5; 1080: 4; 854: 3);
    where only 1 is left, the smallest divisor up to 11; else 1.
    """
    mcus = _mcus(width)
    common = max(n for n in range(1, _LARGEST_COMMON_INTERVAL + 1) if mcus % n == 0)
    if common > 1:
        return common
    rare = range(_LARGEST_COMMON_INTERVAL + 1, _LARGEST_RARE_INTERVAL + 1)
    return next((n for n in rare if mcus % n == 0), 1)


def patch_box(width: int, height: int, rect: CropRect) -> CropRect:
    """The smallest box of whole segments round ``rect``, in a frame of ``width`` x ``height``.

    x1 and y1 are multiples of 16; x2 and y2 are so too, or are the frame's edge. It does not
    depend on the JPEG quality, so one set of raw patches serves them all.

    Raises InvalidInput when the rectangle is empty or outside the frame.
    """
    check_rect(rect, width, height)
    step = restart_interval(width) * MCU_PX
    return CropRect(
        rect.x1 // step * step,
        rect.y1 // MCU_PX * MCU_PX,
        min(width, -(-rect.x2 // step) * step),
        min(height, -(-rect.y2 // MCU_PX) * MCU_PX),
    )


def jpeg_options(quality: int, interval: int) -> list[int]:
    """What ``cv2.imencode`` has to be told. Raises InvalidInput when ``quality`` is not 1-100."""
    if not 1 <= quality <= 100:
        raise InvalidInput(f"JPEG quality is {quality}, allowed are 1-100")
    return [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_RST_INTERVAL,
        interval,
    ]


def check_jpeg_size(width: int, height: int) -> None:
    """Raises InvalidInput when a JPEG cannot have this size."""
    if not (1 <= width <= MAX_JPEG_PX and 1 <= height <= MAX_JPEG_PX):
        raise InvalidInput(f"frame is {width}x{height}, a JPEG may have 1-{MAX_JPEG_PX} a side")


def encode_jpeg(frame: UInt8Array, quality: int) -> bytes:
    """The whole frame as a JPEG: the same bytes as the partial path makes of the same pixels.

    ``frame`` is (height, width, 3) uint8 BGR, ``quality`` 1-100 in libjpeg's scale.
    Raises InvalidInput when either is something else.
    """
    check_pixels(frame, "the frame")
    height, width = frame.shape[:2]
    check_jpeg_size(width, height)
    return imencode_jpeg(frame, jpeg_options(quality, restart_interval(width))).tobytes()


def imencode_jpeg(pixels: UInt8Array, options: list[int]) -> UInt8Array:
    """(bytes,) uint8, writable and the caller's own."""
    done, encoded = cv2.imencode(".jpg", pixels, options)
    if not done:  # OpenCV raises for everything known; this is its only other way to fail
        raise InvalidInput(f"a picture of shape {pixels.shape} cannot be encoded as JPEG")
    return encoded


def segment_ends(jpeg: UInt8Array, scan_start: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Where each segment's entropy-coded bytes end: (segments,) offsets of the markers that follow.

    The marker is RST0-7, after the last segment EOI. In entropy-coded data 0xFF is followed by 0x00
    unless it begins a marker (ITU-T T.81, B.1.1.5).
    """
    scan = jpeg[scan_start:]
    found = np.flatnonzero(scan[:-1] == 0xFF)
    return found[scan[found + 1] >= 0xD0] + scan_start


def scan_offset(jpeg: UInt8Array) -> int:
    """Where the entropy-coded bytes of a baseline JPEG begin: behind the header of its one scan."""
    at = 2  # SOI has no length
    while True:
        marker = int(jpeg[at + 1])
        at += 2 + (int(jpeg[at + 2]) << 8 | int(jpeg[at + 3]))
        if marker == 0xDA:
            return at


def _mcus(pixels: int) -> int:
    return -(-pixels // MCU_PX)
