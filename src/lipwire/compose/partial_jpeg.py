"""Encoding only what changed: a JPEG whose segments round the mouth are replaced.

A frame differs from its background only inside the crop rectangle. Between two restart markers
the entropy-coded data of a JPEG stands alone: the predictions start anew and the bits are padded
to a byte (ITU-T T.81, E.1.4 and F.1.2.1). So the background is encoded once, and for each frame
only the box of segments round the mouth is encoded, with the same tables and the same interval,
and put in place of the background's segments:

    background  header | row 0 ........ | row 1 .... [old] .... | row 2 .... [old] .... | ... | EOI
    patch       header |                            [new]                   [new]          EOI
    result      header | row 0 ........ | row 1 .... [new] .... | row 2 .... [new] .... | ... | EOI

The segments keep their places, so the markers RST0-7 of the background stay right, and only those
inside the new runs are numbered again. The box begins at multiples of 16 pixels, where both the
8x8 blocks and the 2x2 averages of the chroma planes begin, and where it ends at the frame's edge
the encoder completes the last MCU as it does for the frame. The result is the full encode of the
composited frame, byte for byte.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from lipwire.compose.geometry import check_pixels
from lipwire.compose.jpeg import (
    MCU_PX,
    check_jpeg_size,
    jpeg_options,
    patch_box,
    restart_interval,
)
from lipwire.domain import CropRect, InvalidInput, UInt8Array

RowBounds = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A frame as a JPEG file in which a box of pixels, the patch with the mouth, can be replaced;
    made by ``PartialJpeg.background``, or from the same three values read from a file.

    ``jpeg`` is the whole JPEG file, or all of it but what a patch replaces (``without_box``), as
    any contiguous buffer of bytes. ``box`` is what a patch covers, in pixels of the frame.
    ``row_bounds`` is (rows of MCUs in the box, 2) int32, where MCUs are blocks of 16 x 16 pixels:
    the offsets in ``jpeg`` between which the bytes of that row are replaced.
    """

    jpeg: bytes | memoryview | UInt8Array
    """The whole JPEG, or all of it but what a patch replaces; any contiguous buffer of bytes."""

    box: CropRect
    """What a patch covers, in pixels of the frame; see ``patch_box``."""

    row_bounds: RowBounds
    """(MCU rows of the box, 2) int32: offsets in ``jpeg`` of the first entropy-coded byte that
    the patch replaces in that row, and of the marker behind the last one.
    """

    def without_box(self) -> "Background":
        """Return this background without the bytes that a patch replaces, from which
        ``PartialJpeg.encode`` makes the same files. Its ``jpeg`` is no valid JPEG file by itself.
        """
        jpeg = self.jpeg
        old = jpeg.data if isinstance(jpeg, np.ndarray) else memoryview(jpeg)
        starts, stops = self.row_bounds.T.tolist()
        kept = [old[at:end] for at, end in zip([0, *stops], [*starts, len(old)], strict=True)]
        removed = np.cumsum([0, *np.subtract(stops, starts)[:-1]])
        bounds = np.repeat((np.array(starts) - removed)[:, None], 2, axis=1)
        return Background(b"".join(kept), self.box, bounds.astype(np.int32))


class PartialJpeg:
    """Encodes frames of one size as JPEG at one quality, of which only a patch differs from a
    background that was encoded before: only the patch is encoded. Immutable, so threads may share
    it.

        layout = PartialJpeg(1280, 720, quality=75)
        background = layout.background(frame, rect)       # once for each frame
        box = background.box
        patch = frame[box.y1 : box.y2, box.x1 : box.x2].copy()
        paste_mouth(patch, (box.x1, box.y1), mouth, rect, border_px=4)
        jpeg = layout.encode(background, patch)           # == encode_jpeg(the whole frame, 75)

    Frames have ``width`` x ``height`` pixels, 1 to 65,500 a side. ``quality`` is 1-100 in libjpeg's
    scale. Raises InvalidInput when a JPEG cannot have this size or quality.
    """

    __slots__ = ("_options", "_scan_start", "height", "interval", "quality", "width")

    def __init__(self, width: int, height: int, quality: int) -> None:
        check_jpeg_size(width, height)
        self.width = width
        self.height = height
        self.quality = quality
        self.interval = restart_interval(width)
        self._options = jpeg_options(quality, self.interval)
        # The header's length depends on neither the size nor the pixels.
        self._scan_start = scan_offset(imencode_jpeg(np.zeros((1, 1, 3), np.uint8), self._options))

    def patch_box(self, rect: CropRect) -> CropRect:
        """Return the box of pixels that a patch has to cover for the crop rectangle ``rect``, in
        pixels of the frame: the smallest one around it that can be replaced in a JPEG of the frame.
        Raises InvalidInput when ``rect`` is empty or outside the frame."""
        return patch_box(self.width, self.height, rect)

    def background(self, frame: UInt8Array, rect: CropRect) -> Background:
        """Return ``frame`` encoded as a JPEG in which ``encode`` can replace a patch, the box of
        pixels around the crop rectangle ``rect``.

        ``frame`` is (height, width, 3) uint8 BGR; ``rect`` is in its pixels. Raises InvalidInput
        when the shape is another or the rectangle is empty or outside.
        """
        self.check(frame)
        box = self.patch_box(rect)
        jpeg = imencode_jpeg(frame, self._options)
        first, across, rows, per_row = self._segments(box)
        ends = segment_ends(jpeg, self._scan_start)
        starts = np.concatenate(([self._scan_start], ends[:-1] + 2))
        row_firsts = first + per_row * np.arange(rows)
        bounds = np.stack((starts[row_firsts], ends[row_firsts + across - 1]), axis=1)
        return Background(jpeg.tobytes(), box, bounds.astype(np.int32))

    def header(self) -> bytes:
        """Return the bytes that stand before the entropy-coded ones in every JPEG file of a frame
        of this size and quality."""
        black = np.zeros((self.height, self.width, 3), np.uint8)
        return imencode_jpeg(black, self._options)[: self._scan_start].tobytes()

    def segments(self, pixels: UInt8Array) -> list[bytes]:
        """Encode ``pixels``, (height, width, 3) uint8 BGR of any size that a JPEG may have, and
        return the segments of that JPEG: the entropy-coded bytes between restart markers, in their
        order, row by row. The same pixels give the same segment at any place of a frame, except
        where ``pixels`` end inside an MCU (a block of 16 x 16 pixels). The interval between markers
        is that of this layout, whatever the width of ``pixels``."""
        return self.split(imencode_jpeg(pixels, self._options).tobytes())

    def split(self, jpeg: bytes | memoryview | UInt8Array) -> list[bytes]:
        """Return the segments of ``jpeg``, the bytes of a whole file that this layout has made: the
        entropy-coded bytes between restart markers, in their order. Whether this layout has made
        the file is not checked."""
        data = bytes(jpeg)
        ends = segment_ends(np.frombuffer(data, np.uint8), self._scan_start).tolist()
        starts = [self._scan_start, *(end + 2 for end in ends[:-1])]
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    def check(self, frame: UInt8Array) -> None:
        """Raise InvalidInput where ``frame`` is not (height, width, 3) uint8, or has another size
        than frames of this layout."""
        check_pixels(frame, "the frame")
        if frame.shape[:2] != (self.height, self.width):
            raise InvalidInput(
                f"the frame is {frame.shape[1]}x{frame.shape[0]}, "
                f"this layout is for {self.width}x{self.height}"
            )

    def encode(self, background: Background, patch: UInt8Array) -> bytes:
        """Return the frame of ``background`` as a JPEG file, with the pixels in its box replaced by
        ``patch``.

        ``background`` is what ``background`` of a layout with the same size and quality returned
        for the frame, or its ``without_box()``. ``patch`` is (box height, box width, 3) uint8 BGR.
        The result equals ``encode_jpeg`` of the composited frame byte for byte. Raises InvalidInput
        when the patch has another shape or dtype.
        """
        box = background.box
        if patch.shape != (box.height, box.width, 3) or patch.dtype != np.uint8:
            raise InvalidInput(
                f"patch is {patch.dtype} of shape {patch.shape}, "
                f"allowed is uint8 of shape ({box.height}, {box.width}, 3)"
            )
        first, across, rows, per_row = self._segments(box)
        encoded = imencode_jpeg(patch, self._options)
        ends = segment_ends(encoded, self._scan_start)
        encoded[ends[:-1] + 1] = _markers(first % 8, across, rows, per_row % 8)
        new = encoded.data
        jpeg = background.jpeg
        old = jpeg.data if isinstance(jpeg, np.ndarray) else memoryview(jpeg)
        pieces = []
        old_at, new_at = 0, self._scan_start
        row_ends: list[int] = ends[across - 1 :: across].tolist()
        bounds: list[list[int]] = background.row_bounds.tolist()
        for (start, stop), new_end in zip(bounds, row_ends, strict=True):
            pieces.append(old[old_at:start])
            pieces.append(new[new_at:new_end])
            old_at = stop
            new_at = new_end + 2  # past the marker between two rows of the patch
        pieces.append(old[old_at:])
        return b"".join(pieces)

    def _segments(self, box: CropRect) -> tuple[int, int, int, int]:
        """A box in segments: the first one's number, across, rows; and across the frame."""
        step = self.interval * MCU_PX
        per_row = -(-self.width // step)
        first = box.y1 // MCU_PX * per_row + box.x1 // step
        return first, -(-box.width // step), -(-box.height // MCU_PX), per_row


def encode_jpeg(frame: UInt8Array, quality: int) -> bytes:
    """Return the whole frame as a baseline JPEG at 4:2:0. ``PartialJpeg``, which encodes only the
    part of a frame that has changed, gives the same bytes for the same pixels.

    ``frame`` is (height, width, 3) uint8 BGR, 1 to 65,500 pixels a side; ``quality`` is 1-100 in
    libjpeg's scale. Raises InvalidInput when either is something else.
    """
    check_pixels(frame, "the frame")
    height, width = frame.shape[:2]
    check_jpeg_size(width, height)
    return imencode_jpeg(frame, jpeg_options(quality, restart_interval(width))).tobytes()


def imencode_jpeg(pixels: UInt8Array, options: list[int]) -> UInt8Array:
    """Encode ``pixels``, (height, width, 3) uint8 BGR, as a JPEG file; return its bytes, (bytes,)
    uint8, writable and the caller's own. ``options`` are what ``jpeg_options`` returned. Raises
    InvalidInput where OpenCV says that it cannot encode the pixels, and cv2.error for what is no
    picture or too large."""
    done, encoded = cv2.imencode(".jpg", pixels, options)
    if not done:  # OpenCV raises for everything known; this is its only other way to fail
        raise InvalidInput(f"a picture of shape {pixels.shape} cannot be encoded as JPEG")
    return encoded


def segment_ends(jpeg: UInt8Array, scan_start: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return where each segment's entropy-coded bytes end in a JPEG file: (segments,) int64 offsets
    of the markers that follow. ``jpeg`` is the file, (bytes,) uint8; ``scan_start`` is the offset
    at which its entropy-coded bytes begin.

    The marker is RST0-7, after the last segment EOI. In entropy-coded data 0xFF is followed by 0x00
    unless it begins a marker (ITU-T T.81, B.1.1.5).
    """
    scan = jpeg[scan_start:]
    found = np.flatnonzero(scan[:-1] == 0xFF)
    return found[scan[found + 1] >= 0xD0] + scan_start


def scan_offset(jpeg: UInt8Array) -> int:
    """Return the offset at which the entropy-coded bytes of ``jpeg``, the bytes of a baseline JPEG
    file with one scan as (bytes,) uint8, begin: right behind the scan's header. The file is not
    checked; IndexError is raised where it has no scan."""
    at = 2  # SOI has no length
    while True:
        marker = int(jpeg[at + 1])
        at += 2 + (int(jpeg[at + 2]) << 8 | int(jpeg[at + 3]))
        if marker == 0xDA:
            return at


@lru_cache(maxsize=1024)
def _markers(first_mod_8: int, across: int, rows: int, per_row_mod_8: int) -> UInt8Array:
    """Second bytes of the markers inside a patch, as the frame counts them.

    Behind segment n stands RST(n mod 8), 0xD0-0xD7. (across * rows - 1,) uint8.
    Those at the end of a row are not copied, so their number does not matter.
    """
    numbers = first_mod_8 + per_row_mod_8 * np.arange(rows)[:, None] + np.arange(across)
    return (0xD0 + numbers.reshape(-1)[:-1] % 8).astype(np.uint8)
