"""The parts made from frames: what each keeps, how it is written, how it is read.

    patches   pixels of the box round each crop rectangle, and the rectangle's rim as the network's
              size has it (`compose.crop_rim`); every kind of output needs them
    jpeg      each frame as a JPEG with restart intervals, at one quality
    planes    each frame as I420, for H.264
    pixels    each frame as BGR, for raw output

A builder's ``prepare`` runs in any thread and makes one frame's bytes; ``append`` writes them and
is called in the order of the frames. All pixels are uint8 BGR, as OpenCV has them.
"""

import math
from typing import IO, Any, Final, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from lipwire.avatars.container import Container, ContainerDamagedError, ContainerWriter
from lipwire.compose import (
    RIM_BYTES,
    Background,
    PartialJpeg,
    bgr_to_i420,
    crop_rim,
    i420_shape,
    patch_box,
    restart_interval,
)
from lipwire.domain import CropRect, UInt8Array

Part = Literal["model", "patches", "jpeg", "planes", "pixels"]
FramePart = Literal["patches", "jpeg", "planes", "pixels"]

ALWAYS: Final[frozenset[Part]] = frozenset({"model", "patches"})
"""Compiled and mapped whatever else is asked for."""
FRAME_PARTS: Final[tuple[FramePart, ...]] = ("patches", "jpeg", "planes", "pixels")

Boxes = npt.NDArray[np.int32]  # (frames, 4): x1, y1, x2, y2


class Builder(Protocol):
    """Writes one part."""

    def prepare(self, frame: UInt8Array, rect: CropRect) -> Any:
        """What ``append`` takes for this frame, (height, width, 3). Runs in any thread."""

    def append(self, prepared: Any) -> None:
        """Write what ``prepare`` made for the next frame."""

    def finish(self) -> None:
        """Write what comes after the last frame."""


def builder(
    part: FramePart, stream: IO[bytes], key: str, width: int, height: int, quality: int
) -> Builder:
    """What writes ``part`` of frames of that size to ``stream``. ``quality`` is for JPEG only."""
    facts = {"width": width, "height": height}
    if part == "patches":
        return _PatchesBuilder(stream, key, facts)
    if part == "jpeg":
        return _JpegBuilder(stream, key, facts, PartialJpeg(width, height, quality))
    return _WholeBuilder(part, stream, key, facts)


class _PatchesBuilder:
    def __init__(self, stream: IO[bytes], key: str, facts: dict[str, Any]) -> None:
        self._writer = ContainerWriter(stream)
        self._writer.begin("patches")
        self._key = key
        self._facts = facts
        self._starts: list[int] = []
        self._boxes: list[tuple[int, int, int, int]] = []
        self._rects: list[tuple[int, int, int, int]] = []

    def prepare(self, frame: UInt8Array, rect: CropRect) -> tuple[CropRect, CropRect, bytes]:
        box = patch_box(frame.shape[1], frame.shape[0], rect)
        patch = frame[box.y1 : box.y2, box.x1 : box.x2].tobytes()
        # Behind its patch: both are read at once, which shows when a frame comes from the disk.
        return rect, box, patch + crop_rim(frame, rect).tobytes()

    def append(self, prepared: tuple[CropRect, CropRect, bytes]) -> None:
        rect, box, data = prepared
        self._rects.append((rect.x1, rect.y1, rect.x2, rect.y2))
        self._boxes.append((box.x1, box.y1, box.x2, box.y2))
        self._starts.append(self._writer.append(data))

    def finish(self) -> None:
        self._writer.array("starts", np.array(self._starts, np.int64))
        self._writer.array("boxes", np.array(self._boxes, np.int32))
        self._writer.array("rects", np.array(self._rects, np.int32))
        self._writer.finish("patches", self._key, self._facts | {"frames": len(self._starts)})


class _JpegBuilder:
    def __init__(
        self, stream: IO[bytes], key: str, facts: dict[str, Any], layout: PartialJpeg
    ) -> None:
        self._writer = ContainerWriter(stream)
        self._writer.begin("jpegs")
        self._key = key
        self._facts = facts | {"interval": layout.interval}
        self._layout = layout
        self._starts = [0]
        self._row_starts = [0]
        self._row_bounds: list[npt.NDArray[np.int32]] = []

    def prepare(self, frame: UInt8Array, rect: CropRect) -> Background:
        return self._layout.background(frame, rect)

    def append(self, prepared: Background) -> None:
        data = bytes(prepared.jpeg)
        self._writer.append(data)
        self._starts.append(self._starts[-1] + len(data))
        self._row_starts.append(self._row_starts[-1] + len(prepared.row_bounds))
        self._row_bounds.append(prepared.row_bounds)

    def finish(self) -> None:
        self._writer.array("starts", np.array(self._starts, np.int64))
        self._writer.array("row_starts", np.array(self._row_starts, np.int64))
        self._writer.array("row_bounds", np.concatenate(self._row_bounds).astype(np.int32))
        self._writer.finish("jpeg", self._key, self._facts | {"frames": len(self._row_bounds)})


class _WholeBuilder:
    """Planes and pixels: frames of one size, one behind the other."""

    def __init__(
        self,
        part: Literal["planes", "pixels"],
        stream: IO[bytes],
        key: str,
        facts: dict[str, Any],
    ) -> None:
        self._writer = ContainerWriter(stream)
        self._writer.begin("frames")
        self._count = 0
        self._part = part
        self._key = key
        self._facts = facts

    def prepare(self, frame: UInt8Array, rect: CropRect) -> UInt8Array:
        del rect  # the whole frame is kept
        return bgr_to_i420(frame) if self._part == "planes" else np.ascontiguousarray(frame)

    def append(self, prepared: UInt8Array) -> None:
        self._writer.append(prepared.data.cast("B"))
        self._count += 1

    def finish(self) -> None:
        self._writer.finish(self._part, self._key, self._facts | {"frames": self._count})


class Patches:
    """The part ``patches``, opened. Raises ContainerDamagedError where it does not add up."""

    __slots__ = ("_boxes", "_data", "_rects", "_starts", "count", "height", "width")

    def __init__(self, container: Container) -> None:
        self.width, self.height = _size(container)
        self._data: UInt8Array = container.array("patches")
        rects, boxes = container.array("rects"), container.array("boxes")
        starts = container.array("starts")
        self.count = frame_count(container)
        if (
            starts.shape != (self.count,)
            or boxes.shape != (self.count, 4)
            or rects.shape != (self.count, 4)
        ):
            raise ContainerDamagedError(f"{container.path.name} has tables of different lengths")
        x1, y1, x2, y2 = boxes.T.astype(np.int64)
        sizes = (x2 - x1) * (y2 - y1) * 3 + RIM_BYTES
        if not (
            _inside(boxes, np.zeros(2, np.int32), np.array([self.width, self.height]))
            and _inside(rects, boxes[:, :2], boxes[:, 2:])
            and (starts >= 0).all()
            and (starts + sizes <= len(self._data)).all()
        ):
            raise ContainerDamagedError(f"{container.path.name} has boxes outside the frame")
        # As lists: indexing an array for one number at a time costs more than the rest of a frame.
        self._starts: list[int] = starts.tolist()
        self._boxes: list[list[int]] = boxes.tolist()
        self._rects: list[list[int]] = rects.tolist()
        if self.box(0) != patch_box(self.width, self.height, self.rect(0)):
            raise ContainerDamagedError(f"{container.path.name} has boxes of another layout")

    @property
    def size_bytes(self) -> int:
        return self._data.nbytes

    def rect(self, index: int) -> CropRect:
        return CropRect(*self._rects[index])

    def box(self, index: int) -> CropRect:
        """What the patch covers; see ``compose.patch_box``."""
        return CropRect(*self._boxes[index])

    def patch(self, index: int) -> UInt8Array:
        """(box height, box width, 3) uint8 BGR, read-only, mapped."""
        box, start = self.box(index), self._starts[index]
        size = box.width * box.height * 3
        return self._data[start : start + size].reshape(box.height, box.width, 3)

    def rim(self, index: int) -> UInt8Array:
        """See ``compose.crop_rim``; read-only, mapped."""
        box = self.box(index)
        start = self._starts[index] + box.width * box.height * 3
        rim: UInt8Array = self._data[start : start + RIM_BYTES]
        return rim


class Jpegs:
    """The part ``jpeg``, opened. Raises ContainerDamagedError where it does not add up."""

    __slots__ = ("_data", "_row_bounds", "_row_starts", "_starts")

    def __init__(self, container: Container) -> None:
        width, _ = _size(container)
        count = frame_count(container)
        self._data: UInt8Array = container.array("jpegs")
        self._row_bounds: npt.NDArray[np.int32] = container.array("row_bounds")
        starts, row_starts = container.array("starts"), container.array("row_starts")
        if (
            container.facts.get("interval") != restart_interval(width)
            or starts.shape != (count + 1,)
            or row_starts.shape != (count + 1,)
            or not _runs(starts, len(self._data))
            or not _runs(row_starts, len(self._row_bounds))
        ):
            raise ContainerDamagedError(f"{container.path.name} has tables that do not add up")
        self._starts: list[int] = starts.tolist()
        self._row_starts: list[int] = row_starts.tolist()

    @property
    def size_bytes(self) -> int:
        return self._data.nbytes

    def jpeg(self, index: int) -> UInt8Array:
        """The background's bytes, (length,) uint8, read-only, mapped."""
        return self._data[self._starts[index] : self._starts[index + 1]]

    def background(self, index: int, box: CropRect) -> Background:
        rows = slice(self._row_starts[index], self._row_starts[index + 1])
        return Background(self.jpeg(index), box, self._row_bounds[rows])


def whole_frames(container: Container) -> UInt8Array:
    """The part ``planes``, (frames, even height * 3/2, even width), or ``pixels``, (frames, height,
    width, 3) BGR: uint8, read-only, mapped. Raises ContainerDamagedError.
    """
    width, height = _size(container)
    count = frame_count(container)
    planes = container.part == "planes"
    shape = i420_shape(width, height) if planes else (height, width, 3)
    data: UInt8Array = container.array("frames")
    if data.size != count * math.prod(shape):
        raise ContainerDamagedError(f"{container.path.name} has {data.size} bytes of frames")
    return data.reshape(count, *shape)


def frame_count(container: Container) -> int:
    """How many frames a part is of, at least 1. Raises ContainerDamagedError."""
    count = container.facts.get("frames")
    if not isinstance(count, int) or count < 1:
        raise ContainerDamagedError(f"{container.path.name} has no number of frames")
    return count


def encoder_version() -> str:
    """What JPEG bytes depend on besides pixels and quality: a patch is spliced into a background
    encoded earlier, so both have to come from one encoder."""
    return f"opencv-{cv2.__version__}"


def _size(container: Container) -> tuple[int, int]:
    width, height = container.facts.get("width"), container.facts.get("height")
    if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
        raise ContainerDamagedError(f"{container.path.name} has no frame size")
    return width, height


def _inside(
    boxes: Boxes, low: npt.NDArray[np.int32], high: npt.NDArray[np.signedinteger[Any]]
) -> bool:
    """Whether every box is not empty and lies within ``low`` and ``high`` (x, y)."""
    starts, ends = boxes[:, :2], boxes[:, 2:]
    return bool((starts >= low).all() and (ends > starts).all() and (ends <= high).all())


def _runs(starts: npt.NDArray[np.int64], total: int) -> bool:
    """Whether ``starts`` climb from 0 to ``total``."""
    return bool(starts[0] == 0 and starts[-1] == total and (np.diff(starts) > 0).all())
