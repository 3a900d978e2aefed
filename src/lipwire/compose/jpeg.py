"""JPEG settings.

Every JPEG here is baseline, 4:2:0, with the standard Huffman tables and a restart interval that
divides the row of MCUs (16x16 pixels at 4:2:0; ITU-T T.81, A.2 and B.2.4.4). The restart interval
is what lets ``partial_jpeg`` replace a part of a picture; it changes no pixel.
"""

from typing import Final

import cv2

from lipwire.compose.geometry import check_rect
from lipwire.domain import CropRect, InvalidInput

MCU_PX: Final = 16
"""Side of a minimum coded unit at 4:2:0."""

MAX_JPEG_PX: Final = 65_500
"""Longest side that libjpeg takes (JPEG_MAX_DIMENSION)."""

_LARGEST_COMMON_INTERVAL: Final = 5
_LARGEST_RARE_INTERVAL: Final = 11


def restart_interval(width: int) -> int:
    """Return how many MCUs, blocks of 16 x 16 pixels, are to lie between two restart markers of a
    JPEG of a frame ``width`` pixels wide.

    Short intervals make small patches: a rectangle of 180 pixels needs 15 or 16 MCUs of a row when
    the interval is 5 and 19 when it is 10. Long ones make small files: on a 720p picture of 87 kB
    the markers and the prediction they break cost 12.8 % at 1, 6.4 % at 2, 2.6 % at 5, 1.3 % at 10.
    So: the largest divisor of the MCUs of a row up to 5 (1280 and 1920 wide: 5; 1080: 4; 854: 3);
    where only 1 is left, the smallest divisor up to 11; else 1.
    """
    mcus = _mcus(width)
    common = max(n for n in range(1, _LARGEST_COMMON_INTERVAL + 1) if mcus % n == 0)
    if common > 1:
        return common
    rare = range(_LARGEST_COMMON_INTERVAL + 1, _LARGEST_RARE_INTERVAL + 1)
    return next((n for n in rare if mcus % n == 0), 1)


def patch_box(width: int, height: int, rect: CropRect) -> CropRect:
    """Return the smallest box around the crop rectangle ``rect``, in a frame of ``width`` x
    ``height`` pixels, that consists of whole JPEG segments, the pieces between restart markers, so
    that it can be encoded alone and replaced in a JPEG of the frame. Like ``rect``, the box is in
    pixels of the frame, with x2 and y2 exclusive.

    x1 and y1 of the box are multiples of 16; x2 and y2 are so too, or are the frame's edge. It does
    not depend on the JPEG quality. Raises InvalidInput when the rectangle is empty or outside the
    frame.
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
    """Return the parameters with which ``cv2.imencode`` writes JPEG (4:2:0) here: names and values
    in turn.

    ``quality`` is 1-100 in libjpeg's scale; ``interval`` is the number of MCUs between restart
    markers. Raises InvalidInput for another quality.
    """
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
    """Raise InvalidInput when a JPEG cannot have ``width`` x ``height`` pixels: 1 to 65,500 a side
    are possible."""
    if not (1 <= width <= MAX_JPEG_PX and 1 <= height <= MAX_JPEG_PX):
        raise InvalidInput(f"frame is {width}x{height}, a JPEG may have 1-{MAX_JPEG_PX} a side")


def _mcus(pixels: int) -> int:
    return -(-pixels // MCU_PX)
