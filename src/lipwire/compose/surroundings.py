"""Encoding the backgrounds of an avatar's frames, of which much is alike.

Where a camera stands still, most of what surrounds a person is the same from one frame to the next:
video codecs repeat it bit for bit. A segment of a JPEG depends on its own pixels alone (see
``partial_jpeg``), so those that are as in the frame before are taken from there. The others are put
beside each other into a smaller picture, which is encoded in their place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.compose.jpeg import MCU_PX
from lipwire.compose.partial_jpeg import Background, PartialJpeg
from lipwire.domain import CropRect, UInt8Array

_Mask = npt.NDArray[np.bool_]
"""(rows, across): one value for each segment of a frame."""

_PLAIN: Final = 128
"""Grey, whose blocks are the shortest: all of their coefficients are 0."""

_MOST_CHANGED: Final = 0.6
"""Of the segments: where more have changed, the whole frame is encoded sooner."""

_MARKERS: Final = [bytes((0xFF, 0xD0 + number)) for number in range(8)]
_END: Final = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A frame that was encoded. ``split()`` gives its segments, each with the marker behind it,
    those that are ``covered`` by the patch with any bytes."""

    frame: UInt8Array
    covered: _Mask
    split: Callable[[], list[bytes]]


class SurroundingsEncoder:
    """Encodes frames of one size as JPEG, each without the box of pixels that a patch with the
    mouth replaces later, with ``PartialJpeg.encode``. Thread-safe. Frames may be given in any
    order; where a frame is much like the one before, less has to be encoded.

    ``layout`` is the ``PartialJpeg`` for the frames' size and quality.
    """

    def __init__(self, layout: PartialJpeg) -> None:
        self._layout = layout
        self._step = layout.interval * MCU_PX
        self._across = -(-layout.width // self._step)
        self._whole_rows = layout.height // MCU_PX
        self._rows = -(-layout.height // MCU_PX)
        # Elsewhere the last segment of a row stands for pixels beyond it, or there is no whole row.
        self._compares = layout.width % MCU_PX == 0 and self._whole_rows > 0
        self._header = layout.header()
        count = self._rows * self._across
        self._markers: list[bytes] = [*(_MARKERS[number % 8] for number in range(count - 1)), _END]
        self._last: _Encoded | None = None

    def encode(self, frame: UInt8Array, rect: CropRect) -> Background:
        """Return what ``layout.background(frame, rect).without_box()`` returns, in less time.

        ``frame`` is (height, width, 3) uint8 BGR; ``rect`` is in its pixels. The frame is kept to
        compare the next ones with, and must not be changed afterwards; while this method runs the
        frame may be drawn into and restored, so that no other thread may read it. Raises
        InvalidInput when the shape is another or the rectangle is empty or outside.
        """
        box = self._layout.patch_box(rect)
        self._layout.check(frame)
        covered = self._covered(box)
        split: Callable[[], list[bytes]]
        segments = self._like_last(frame, covered)
        if segments is None:
            whole = self._encode_whole(frame, box, rect)
            made = whole.without_box()
            split = partial(self._split, whole.jpeg)
        else:
            made = self._joined(segments, box)
            split = partial(list[bytes], segments)
        if self._compares:
            self._last = _Encoded(frame, covered, split)
        return made

    def _covered(self, box: CropRect) -> _Mask:
        """Which segments are under the patch, (rows, across)."""
        covered = np.zeros((self._rows, self._across), np.bool_)
        left, top = box.x1 // self._step, box.y1 // MCU_PX
        right, bottom = -(-box.x2 // self._step), -(-box.y2 // MCU_PX)
        covered[top:bottom, left:right] = True
        return covered

    def _like_last(self, frame: UInt8Array, covered: _Mask) -> list[bytes] | None:
        """The segments of ``frame``, each with the marker behind it, with those of the last frame
        that are the same; None where too few are. Those that are ``covered`` have any bytes."""
        last = self._last
        if last is None:
            return None
        pixels, before = self._in_eights(frame), self._in_eights(last.frame)
        # Of each segment the first row of pixels, which tells most that differ.
        if self._differ(pixels[:, 0] != before[:, 0]).mean() > _MOST_CHANGED:
            return None
        changed = np.ones((self._rows, self._across), np.bool_)
        changed[: self._whole_rows] = self._differ((pixels != before).any(axis=1))
        new = (changed | last.covered) & ~covered
        if new.mean() > _MOST_CHANGED:
            return None
        segments = last.split()
        self._encode_some(frame, new, segments)
        return segments

    def _in_eights(self, frame: UInt8Array) -> npt.NDArray[np.uint64]:
        """The whole rows of segments of ``frame``, (rows, 16, ...), eight bytes in each value."""
        pixels = np.ascontiguousarray(frame[: self._whole_rows * MCU_PX])
        return pixels.reshape(self._whole_rows, MCU_PX, -1).view(np.uint64)

    def _differ(self, rows: npt.NDArray[np.bool_]) -> _Mask:
        """Which segments have a value that differs, (rows, across), where ``rows`` are the values
        that do, (rows, ...)."""
        return np.asarray(rows.reshape(len(rows), self._across, -1).any(axis=2))

    def _encode_some(self, frame: UInt8Array, new: _Mask, segments: list[bytes]) -> None:
        """Put the segments that ``new`` names into ``segments``."""
        rows, columns = np.nonzero(new[: self._whole_rows])
        if len(rows):
            # As many in a row as in the frame; what fills up the last row is not looked at.
            padded = -(-len(rows) // self._across) * self._across
            rows, columns = np.resize(rows, padded), np.resize(columns, padded)
            grid = frame[: self._whole_rows * MCU_PX].reshape(
                self._whole_rows, MCU_PX, self._across, self._step, 3
            )
            chosen = grid[rows, :, columns].reshape(-1, self._across, MCU_PX, self._step, 3)
            strip = chosen.swapaxes(1, 2).reshape(-1, self._layout.width, 3)
            numbers = np.flatnonzero(new[: self._whole_rows]).tolist()
            for number, segment in zip(numbers, self._layout.segments(strip), strict=False):
                segments[number] = segment + self._markers[number]
        if new[self._whole_rows :].any():  # a row that the frame ends in
            first = self._whole_rows * self._across
            last_row = self._layout.segments(frame[self._whole_rows * MCU_PX :])
            for column in np.flatnonzero(new[self._whole_rows]).tolist():
                segments[first + column] = last_row[column] + self._markers[first + column]

    def _encode_whole(self, frame: UInt8Array, box: CropRect, rect: CropRect) -> Background:
        """``frame`` with grey under the patch, which costs next to nothing."""
        if not frame.flags.writeable:
            frame = frame.copy()
        under = frame[box.y1 : box.y2, box.x1 : box.x2]
        seen = under.copy()
        under[...] = _PLAIN
        try:
            return self._layout.background(frame, rect)
        finally:
            under[...] = seen

    def _split(self, jpeg: bytes | memoryview | UInt8Array) -> list[bytes]:
        """The segments of ``jpeg``, a whole frame, each with the marker behind it."""
        segments = self._layout.split(jpeg)
        return [a + b for a, b in zip(segments, self._markers, strict=True)]

    def _joined(self, segments: list[bytes], box: CropRect) -> Background:
        """The file without what a patch covers, and where that goes."""
        left, right = box.x1 // self._step, -(-box.x2 // self._step)
        top, bottom = box.y1 // MCU_PX, -(-box.y2 // MCU_PX)
        pieces, length, bounds, at = [self._header], len(self._header), [], 0
        for row in range(top, bottom):
            first, behind = row * self._across + left, row * self._across + right
            new = b"".join(segments[at:first])
            length += len(new)
            bounds.append((length, length))
            marker = self._markers[behind - 1]  # which follows the patch
            pieces += new, marker
            length += len(marker)
            at = behind
        pieces += segments[at:]
        return Background(b"".join(pieces), box, np.array(bounds, np.int32))
