"""BGR pixels as RGB bytes, and as the planes that H.264 is made from.

The planes are I420: BT.709, limited range (Y 16-235, U and V 16-240), one U and V for each 2x2
pixels. BT.709 because it is what players assume of high-definition video that says nothing; the
video writer says it as well. Chroma is the average of its four pixels, so it sits in their
centre.

A frame of odd width or height is completed to an even one by repeating its last column or row.

Rounding: chroma pixels are averaged to whole numbers first; then one matrix product in OpenCV's
fixed point (10-bit weights), which is at most 1 off the exact value. Every output depends only on
its own 2x2 pixels, so converting a patch gives exactly what converting the whole frame gives
there.
"""

from typing import Final

import cv2
import numpy as np

from lipwire.compose.geometry import check_pixels
from lipwire.domain import Float32Array, InvalidInput, UInt8Array

# Kr = 0.2126 and Kb = 0.0722 (ITU-R BT.709-6, 3.2), scaled to limited range (3.4).
# Columns: B, G, R, 1.
_KR: Final = 0.2126
_KB: Final = 0.0722
_KG: Final = 1 - _KR - _KB
_LUMA: Final = 219 / 255
_CHROMA: Final = 224 / 255
_BGR_TO_YUV: Final[Float32Array] = np.array(
    [
        [_LUMA * _KB, _LUMA * _KG, _LUMA * _KR, 16],
        [_CHROMA / 2, *(-_CHROMA / 2 * k / (1 - _KB) for k in (_KG, _KR)), 128],
        [*(-_CHROMA / 2 * k / (1 - _KR) for k in (_KB, _KG)), _CHROMA / 2, 128],
    ],
    dtype=np.float32,
)

_BAND_ROWS: Final = 128


def bgr_to_rgb_bytes(frame: UInt8Array) -> bytes:
    """Return a frame as raw RGB, row after row, three bytes a pixel.

    ``frame`` is (height, width, 3) uint8 BGR. Raises InvalidInput when it is something else.
    """
    check_pixels(frame, "the frame")
    return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).tobytes()


def i420_shape(width: int, height: int) -> tuple[int, int]:
    """Return the shape of the I420 planes of a frame of ``width`` x ``height`` pixels: (even height
    * 3 / 2, even width), where "even" is the side rounded up to an even number."""
    return (height + height % 2) * 3 // 2, width + width % 2


def bgr_to_i420(frame: UInt8Array) -> UInt8Array:
    """Return ``frame`` as I420: the planes of a YUV 4:2:0 picture, the form that video encoders
    take, BT.709 in limited range.

    ``frame`` is (height, width, 3) uint8 BGR; an odd side is completed by repeating its last column
    or row. Returns ``i420_shape(width, height)`` uint8, contiguous: the rows of Y, then U and V,
    each of a quarter of the pixels, packed one behind the other. Raises InvalidInput when the frame
    is something else.
    """
    check_pixels(frame, "the frame")
    planes = np.empty(i420_shape(frame.shape[1], frame.shape[0]), np.uint8)
    y_plane, u_plane, v_plane = _planes(planes)
    even = _even(frame)
    height, width = even.shape[:2]
    # As paste_patch_i420 does it, in bands that stay in the processor's cache: a quarter less time.
    rows = min(_BAND_ROWS, height)
    yuv = np.empty((rows, width, 3), np.uint8)
    small, chroma = np.empty((2, rows // 2, width // 2, 3), np.uint8)
    unused = np.empty((2, rows, width), np.uint8)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        band, half, halves = (
            even[top : top + count],
            count // 2,
            slice(top // 2, top // 2 + rows // 2),
        )
        cv2.transform(band, _BGR_TO_YUV, yuv[:count])
        cv2.split(yuv[:count], [y_plane[top : top + count], *unused[:, :count]])
        cv2.resize(band, (width // 2, half), small[:half], interpolation=cv2.INTER_AREA)
        cv2.transform(small[:half], _BGR_TO_YUV, chroma[:half])
        cv2.split(chroma[:half], [unused[0, :half, : width // 2], u_plane[halves], v_plane[halves]])
    return planes


def paste_patch_i420(planes: UInt8Array, patch: UInt8Array, x: int, y: int) -> None:
    """Convert ``patch``, a rectangle of pixels of a frame, to I420 and put it into the frame's
    ``planes``, in place.

    ``planes`` are those of the whole frame, (even height * 3/2, even width) uint8, contiguous and
    writable, where "even" is the side rounded up to an even number: the rows of Y, then U and V,
    BT.709 in limited range, as ``bgr_to_i420`` makes them. ``patch`` is (patch height, patch width,
    3) uint8 BGR; its top left pixel is (``x``, ``y``) of the frame. ``x`` and ``y`` are even; the
    patch's sides are even too, except where it ends at the last column or row of a frame of odd
    size. The planes are then exactly those of the frame with the patch on it.

    Raises InvalidInput when a shape or dtype is another, or the patch reaches outside the frame or
    has odd coordinates or sides inside it.
    """
    check_pixels(patch, "the patch")
    y_plane, u_plane, v_plane = _planes(planes)
    even = _even(patch)
    height, width = even.shape[:2]
    frame_height, frame_width = y_plane.shape
    if x % 2 or y % 2 or x < 0 or y < 0 or x + width > frame_width or y + height > frame_height:
        raise InvalidInput(
            f"a patch of {width}x{height} at ({x}, {y}) does not fit planes of "
            f"{frame_width}x{frame_height}: it has to lie inside and begin at even pixels"
        )
    if even is not patch and (
        (patch.shape[1] % 2 and x + width != frame_width)
        or (patch.shape[0] % 2 and y + height != frame_height)
    ):
        raise InvalidInput(
            f"a patch of {patch.shape[1]}x{patch.shape[0]} at ({x}, {y}) has an odd side "
            f"inside a frame of {frame_width}x{frame_height}; allowed only at its edge"
        )
    rows, columns = slice(y, y + height), slice(x, x + width)
    half_rows, half_columns = slice(y // 2, (y + height) // 2), slice(x // 2, (x + width) // 2)
    y_plane[rows, columns] = cv2.extractChannel(cv2.transform(even, _BGR_TO_YUV), 0)
    # INTER_AREA at exactly one half is (a + b + c + d + 2) // 4
    small = cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = cv2.transform(small, _BGR_TO_YUV)
    u_plane[half_rows, half_columns] = chroma[..., 1]
    v_plane[half_rows, half_columns] = chroma[..., 2]


def _planes(planes: UInt8Array) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Views of Y (height, width), U and V (height / 2, width / 2)."""
    if (
        planes.ndim != 2
        or planes.dtype != np.uint8
        or planes.shape[0] % 3
        or planes.shape[1] % 2
        or not planes.flags.c_contiguous
    ):
        raise InvalidInput(
            f"planes are {planes.dtype} of shape {planes.shape}, allowed is contiguous uint8 "
            "of shape (height * 3 / 2, width) with both sides even"
        )
    height, width = planes.shape[0] // 3 * 2, planes.shape[1]
    flat = planes.reshape(-1)
    luma, quarter = height * width, height * width // 4
    half = (height // 2, width // 2)
    return (
        flat[:luma].reshape(height, width),
        flat[luma : luma + quarter].reshape(half),
        flat[luma + quarter :].reshape(half),
    )


def _even(pixels: UInt8Array) -> UInt8Array:
    """The same pixels, completed to even sides by repeating the last column and row."""
    height, width = pixels.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return pixels
    return cv2.copyMakeBorder(  # type: ignore[return-value]
        pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE
    )
