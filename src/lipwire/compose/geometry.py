"""Where a mouth goes: from a frame to what the network sees, and back.

The geometry is that of SyncTalk_2D (https://github.com/ZiqiaoPeng/SyncTalk_2D), which resizes the
crop rectangle to 328x328 and lets the network see the inner 320x320 (a border of 4), and the
simpler one that puts 320x320 straight onto the rectangle (a border of 0). All pixels are uint8,
BGR.

Resizing is ``cv2.resize`` with ``INTER_CUBIC``: fixed-point arithmetic with 11-bit weights,
rounded to nearest and clipped to 0-255 once at the end, pixel centres aligned, edge pixels
repeated. A rectangle that already has the wanted size is copied, not resampled.
"""

import math
from typing import Final, Literal

import cv2
import numpy as np

from lipwire.domain import (
    CROP_PX,
    MOUTH_BORDER_PX,
    MOUTH_PX,
    CropRect,
    InvalidInput,
    UInt8Array,
)

BorderPx = Literal[0, 4]
"""Pixels of the resized crop on each side that the network does not see."""

_INNER: Final = slice(MOUTH_BORDER_PX, MOUTH_BORDER_PX + MOUTH_PX)

_WIDE: Final = (MOUTH_BORDER_PX, CROP_PX, 3)
_HIGH: Final = (MOUTH_PX, MOUTH_BORDER_PX, 3)
RIM_BYTES: Final = 2 * math.prod(_WIDE) + 2 * math.prod(_HIGH)
"""Of ``crop_rim``: 15,552."""


def check_rect(rect: CropRect, width: int, height: int) -> None:
    """Raise InvalidInput where ``rect`` is empty or not wholly inside a frame of ``width`` x
    ``height`` pixels."""
    if rect.x1 >= rect.x2 or rect.y1 >= rect.y2:
        raise InvalidInput(f"crop rectangle {rect} is empty: x1 < x2 and y1 < y2 are needed")
    if rect.x1 < 0 or rect.y1 < 0 or rect.x2 > width or rect.y2 > height:
        raise InvalidInput(f"crop rectangle {rect} reaches outside the frame of {width}x{height}")


def check_pixels(pixels: UInt8Array, what: str) -> None:
    """Raise InvalidInput where ``pixels`` is not a non-empty (height, width, 3) uint8 picture.

    ``what`` names it in the message.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
        raise InvalidInput(
            f"{what} is {pixels.dtype} of shape {pixels.shape}, "
            "allowed is uint8 of shape (height, width, 3)"
        )


def network_crop(
    pixels: UInt8Array,
    rect: CropRect,
    border_px: BorderPx,
    origin: tuple[int, int] = (0, 0),
) -> UInt8Array:
    """Return what the network sees of a frame: the content of the crop rectangle ``rect``, resized.

    ``pixels`` is the frame, or a part of it whose top left pixel is ``origin`` (x, y) of the frame:
    (height, width, 3) uint8 BGR. ``rect`` is in pixels of the frame. With ``border_px`` 4 the
    content is resized to 328x328, and 4 pixels are cut off on each side; with 0 it is resized to
    320x320. Returns (320, 320, 3) uint8 BGR, contiguous, not a view; the caller swaps channels for
    a network that takes RGB. Raises InvalidInput when ``pixels`` has another shape or dtype, or the
    rectangle is empty or reaches outside the pixels.
    """
    face = _face(pixels, rect, origin)
    if border_px == 0:
        return _resized(face, MOUTH_PX, MOUTH_PX)
    return np.ascontiguousarray(_resized(face, CROP_PX, CROP_PX)[_INNER, _INNER])


def crop_rim(pixels: UInt8Array, rect: CropRect, origin: tuple[int, int] = (0, 0)) -> UInt8Array:
    """Return the outermost 4 pixels on each side of a frame's crop of 328x328 pixels, which the
    network does not see where the border is 4; ``paste_mouth`` needs them.

    ``pixels`` is the frame, or a part of it whose top left pixel is ``origin`` (x, y) of the frame:
    (height, width, 3) uint8 BGR; ``rect`` is the crop rectangle in pixels of the frame. Returns
    (15552,) uint8 BGR: top and bottom rows, then what is left of the columns. A frame's rim never
    changes, so it can be kept; that saves ``paste_mouth`` one of its two resizings. Raises
    InvalidInput when ``pixels`` has another shape or dtype, or the rectangle is empty or reaches
    outside the pixels.
    """
    crop = _resized(_face(pixels, rect, origin), CROP_PX, CROP_PX)
    return np.concatenate([part.ravel() for part in _rim_of(crop)])


def paste_mouth(
    pixels: UInt8Array,
    origin: tuple[int, int],
    mouth: UInt8Array,
    rect: CropRect,
    border_px: BorderPx,
    rim: UInt8Array | None = None,
    mask: UInt8Array | None = None,
) -> None:
    """Paste ``mouth`` over ``rect``, in place; no pixel outside ``rect`` is changed.

    ``pixels`` is a frame (``origin`` is then (0, 0)) or a patch of one whose top left pixel is
    ``origin`` (x, y) of the frame: (height, width, 3) uint8 BGR, writable, and still showing the
    background under ``rect``, because with a border of 4 the border comes from there. ``mouth`` is
    (320, 320, 3) uint8 BGR and is left as it is. ``rect`` is in pixels of the frame. ``border_px``
    is how many pixels of the resized crop on each side the network does not see: with 4, ``mouth``
    is the middle of 328x328; with 0, it is the whole rectangle. ``rim`` is what ``crop_rim``
    returned for the frame, (15552,) uint8, where the caller has it; with None it is computed, with
    the same result. ``mask`` says what is in front of the mouth, (rect.height, rect.width) uint8:
    255 where the mouth is shown, 0 where the background stays, and between them a mixture, rounded
    to nearest; None where nothing is in front of the mouth.

    Raises InvalidInput when a shape or dtype is wrong, or the rectangle is empty or outside the
    pixels.
    """
    if mouth.shape != (MOUTH_PX, MOUTH_PX, 3) or mouth.dtype != np.uint8:
        raise InvalidInput(
            f"mouth is {mouth.dtype} of shape {mouth.shape}, "
            f"allowed is uint8 of shape ({MOUTH_PX}, {MOUTH_PX}, 3)"
        )
    face = _face(pixels, rect, origin)
    if mask is not None and (mask.shape != face.shape[:2] or mask.dtype != np.uint8):
        raise InvalidInput(
            f"mask is {mask.dtype} of shape {mask.shape}, allowed is uint8 of shape"
            f" {face.shape[:2]}"
        )
    if border_px == 0:
        _show(face, _resized(mouth, rect.width, rect.height), mask)
        return
    if rim is None:
        crop = _resized(face, CROP_PX, CROP_PX)
    else:
        if rim.shape != (RIM_BYTES,) or rim.dtype != np.uint8:
            raise InvalidInput(
                f"rim is {rim.dtype} of shape {rim.shape}, allowed is uint8 of shape ({RIM_BYTES},)"
            )
        crop = np.empty((CROP_PX, CROP_PX, 3), np.uint8)
        start = 0
        for part in _rim_of(crop):
            part[...] = rim[start : start + part.size].reshape(part.shape)
            start += part.size
    crop[_INNER, _INNER] = mouth
    _show(face, _resized(crop, rect.width, rect.height), mask)


def _show(face: UInt8Array, made: UInt8Array, mask: UInt8Array | None) -> None:
    """Put ``made`` in place of ``face``, as far as ``mask`` lets it be seen."""
    if mask is None:
        face[...] = made
        return
    seen = mask[:, :, None].astype(np.uint16)
    mixed = made * seen + face * (255 - seen) + 128
    face[...] = (mixed + (mixed >> 8)) >> 8  # divided by 255 and rounded, for all there can be


def _rim_of(crop: UInt8Array) -> tuple[UInt8Array, ...]:
    """Views of a 328x328 crop's rim: top, bottom, left and right."""
    edge = MOUTH_BORDER_PX
    return crop[:edge], crop[-edge:], crop[_INNER, :edge], crop[_INNER, -edge:]


def _face(pixels: UInt8Array, rect: CropRect, origin: tuple[int, int]) -> UInt8Array:
    """The view of ``pixels`` under ``rect``: (rect.height, rect.width, 3)."""
    check_pixels(pixels, "the frame")
    x, y = origin
    here = CropRect(rect.x1 - x, rect.y1 - y, rect.x2 - x, rect.y2 - y)
    check_rect(here, pixels.shape[1], pixels.shape[0])
    return pixels[here.y1 : here.y2, here.x1 : here.x2]


def _resized(pixels: UInt8Array, width: int, height: int) -> UInt8Array:
    """A new (height, width, 3) uint8 array, a plain copy where the size is right already."""
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]
