"""The parts of a compiled avatar by name; those made from frames: what each keeps, how it is
written, how it is read.

    patches   pixels of the box round each crop rectangle, the rectangle's rim as the network's
              size has it (`compose.crop_rim`), and its mask where the frame has one; every kind of
              output needs them
    jpeg      each frame as a JPEG with restart intervals, at one quality, without the box's
              segments, which are made from the pixels in ``patches``

Besides there is the part ``rest``, made from frames and network together; see ``restpart``.

Whole frames are not kept: two more names, ``planes`` (I420, for H.264) and ``pixels`` (BGR, for raw
output), say that they will be asked for. They are decoded from the source when they are needed; see
``wholeframes``.

A builder's ``prepare`` runs in any thread and makes one frame's bytes; ``append`` writes them and
is called in the order of the frames. All pixels are uint8 BGR, as OpenCV has them.
"""

from typing import IO, Any, Final, Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from lipwire.avatars.compiled.container import Container, ContainerDamagedError, ContainerWriter
from lipwire.avatars.frames.origins import Origins
from lipwire.compose import (
    RIM_BYTES,
    Background,
    PartialJpeg,
    SurroundingsEncoder,
    crop_rim,
    patch_box,
    restart_interval,
)
from lipwire.domain import CropRect, UInt8Array

Part = Literal["model", "gpu", "patches", "jpeg", "planes", "pixels"]
FilePart = Literal["model", "gpu", "patches", "jpeg"]
NetworkPart = Literal["model", "gpu"]
FramePart = Literal["patches", "jpeg"]

ALWAYS: Final[frozenset[Part]] = frozenset({"model", "patches"})
"""What an avatar that speaks needs, whatever form its frames have."""
MODEL_ONLY: Final[frozenset[Part]] = frozenset({"model"})
FRAMES_ONLY: Final[frozenset[Part]] = frozenset({"patches"})
FOR_GPU: Final[frozenset[Part]] = frozenset({"gpu"})
"""What a network needs besides, where a GPU is to run it."""
NETWORK_PARTS: Final[tuple[NetworkPart, ...]] = ("model", "gpu")
"""In the order in which they are made: the second from the first."""
FRAME_PARTS: Final[tuple[FramePart, ...]] = ("patches", "jpeg")
REST_PART: Final = "rest"
WHOLE: Final[frozenset[Part]] = frozenset({"planes", "pixels"})
"""Nothing is compiled for these."""

Boxes = npt.NDArray[np.int32]  # (frames, 4): x1, y1, x2, y2


class Builder(Protocol):
    """Writes one compiled part of an avatar's frames to the stream that ``builder`` was given: for
    each frame ``prepare`` and then, in the frames' order, ``append``; at the end ``finish``. Errors
    of the stream, OSError, are passed on by ``append`` and ``finish``."""

    def prepare(self, frame: UInt8Array, rect: CropRect, mask: UInt8Array | None) -> Any:
        """Return what ``append`` takes for ``frame``, (height, width, 3) uint8 BGR, whose crop
        rectangle is ``rect``. ``mask`` is what is in front of the mouth there, (rect.height,
        rect.width) uint8, from 0 where the frame stays to 255 where the mouth is shown; None where
        all of the mouth is shown.

        May run in several threads for several frames at a time. ``frame`` must not be changed
        afterwards, and no other thread may read it meanwhile.
        """

    def append(self, prepared: Any) -> None:
        """Write ``prepared``, which ``prepare`` returned for the next frame; to be called in the
        frames' order, by one thread at a time."""

    def finish(self) -> None:
        """Write what comes after the last frame, without which the part is damaged."""


def builder(
    part: FramePart,
    stream: IO[bytes],
    key: str,
    size: tuple[int, int],
    quality: int,
    origins: Origins,
) -> Builder:
    """Return what writes the compiled ``part``, "patches" or "jpeg", of frames of ``size`` (width,
    height) in pixels to ``stream``, which is seekable and stays the caller's.

    ``key`` is the name of the part's file, which is needed to open it again. ``quality`` is that of
    the part ``jpeg``, 1 to 100; the part ``patches`` ignores it. ``origins`` says where the frames
    come from; the part ``patches`` stores it as it is when ``finish`` is called. Raises
    InvalidInput where a JPEG cannot have this size or quality.
    """
    width, height = size
    facts = {"width": width, "height": height}
    if part == "patches":
        return _PatchesBuilder(stream, key, facts, origins)
    return _JpegBuilder(stream, key, facts, PartialJpeg(width, height, quality))


class _PatchesBuilder:
    def __init__(
        self, stream: IO[bytes], key: str, facts: dict[str, Any], origins: Origins
    ) -> None:
        self._origins = origins
        self._writer = ContainerWriter(stream)
        self._writer.begin("patches")
        self._key = key
        self._facts = facts
        self._starts: list[int] = []
        self._boxes: list[tuple[int, int, int, int]] = []
        self._rects: list[tuple[int, int, int, int]] = []
        self._masked: list[bool] = []

    def prepare(
        self, frame: UInt8Array, rect: CropRect, mask: UInt8Array | None
    ) -> tuple[CropRect, CropRect, list[bytes], bool]:
        box = patch_box(frame.shape[1], frame.shape[0], rect)
        patch = frame[box.y1 : box.y2, box.x1 : box.x2].tobytes()
        # Behind its patch: both are read at once, which shows when a frame comes from the disk.
        kept = [] if mask is None else [mask.tobytes()]
        return rect, box, [patch, crop_rim(frame, rect).tobytes(), *kept], mask is not None

    def append(self, prepared: tuple[CropRect, CropRect, list[bytes], bool]) -> None:
        rect, box, (patch, *others), masked = prepared
        self._masked.append(masked)
        self._rects.append((rect.x1, rect.y1, rect.x2, rect.y2))
        self._boxes.append((box.x1, box.y1, box.x2, box.y2))
        self._starts.append(self._writer.append(patch))
        for data in others:
            self._writer.append(data)

    def finish(self) -> None:
        self._writer.array("starts", np.array(self._starts, np.int64))
        self._writer.array("boxes", np.array(self._boxes, np.int32))
        self._writer.array("rects", np.array(self._rects, np.int32))
        self._origins.write(self._writer)
        if any(self._masked):
            self._writer.array("masked", np.array(self._masked, np.uint8))
            self._facts |= {"masked": True}
        self._writer.finish("patches", self._key, self._facts | {"frames": len(self._starts)})


class _JpegBuilder:
    def __init__(
        self, stream: IO[bytes], key: str, facts: dict[str, Any], layout: PartialJpeg
    ) -> None:
        self._writer = ContainerWriter(stream)
        self._writer.begin("jpegs")
        self._key = key
        self._facts = facts | {"interval": layout.interval}
        self._encoder = SurroundingsEncoder(layout)
        self._starts = [0]
        self._row_starts = [0]
        self._row_bounds: list[npt.NDArray[np.int32]] = []

    def prepare(self, frame: UInt8Array, rect: CropRect, mask: UInt8Array | None) -> Background:
        return self._encoder.encode(frame, rect)

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


class Patches:
    """The opened part ``patches``: of each frame the pixels around the crop rectangle (the patch),
    which is all that changes when a mouth is pasted, the rim that is needed for it, and the mask
    where it has one. Frames are numbered from 0 to ``count`` - 1; methods raise IndexError above.
    ``width`` and ``height`` are those of the frames in pixels, ``origins`` is where they come from.

    ``container`` is the part's file. Raises ContainerDamagedError where its tables do not fit each
    other. Safe to read from several threads.
    """

    __slots__ = (
        "_boxes",
        "_data",
        "_masked",
        "_rects",
        "_starts",
        "count",
        "height",
        "origins",
        "width",
    )

    def __init__(self, container: Container) -> None:
        self.width, self.height = _size(container)
        self._data: UInt8Array = container.array("patches")
        rects, boxes = container.array("rects"), container.array("boxes")
        starts = container.array("starts")
        self.count = frame_count(container)
        masked = np.zeros(self.count, np.uint8)
        if container.facts.get("masked"):
            masked = container.array("masked")
        if (
            starts.shape != (self.count,)
            or masked.shape != (self.count,)
            or boxes.shape != (self.count, 4)
            or rects.shape != (self.count, 4)
        ):
            raise ContainerDamagedError(f"{container.path.name} has tables of different lengths")
        x1, y1, x2, y2 = boxes.T.astype(np.int64)
        sizes = (x2 - x1) * (y2 - y1) * 3 + RIM_BYTES
        left, top, right, bottom = rects.T.astype(np.int64)
        sizes += (right - left) * (bottom - top) * (masked != 0)
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
        self._masked: list[int] = masked.tolist()
        self.origins = Origins.read(container, self.count)
        if self.box(0) != patch_box(self.width, self.height, self.rect(0)):
            raise ContainerDamagedError(f"{container.path.name} has boxes of another layout")

    @property
    def size_bytes(self) -> int:
        """Bytes of all patches with their rims and masks."""
        return self._data.nbytes

    def rect(self, index: int) -> CropRect:
        """Return the crop rectangle of frame ``index``, in pixels of the frame."""
        return CropRect(*self._rects[index])

    def box(self, index: int) -> CropRect:
        """Return the box that the patch of frame ``index`` covers, in pixels of the frame: the
        smallest one around its crop rectangle that can be replaced in a JPEG
        (``compose.patch_box``)."""
        return CropRect(*self._boxes[index])

    def patch(self, index: int) -> UInt8Array:
        """Return the patch of frame ``index``, (box height, box width, 3) uint8 BGR, read-only,
        mapped."""
        box, start = self.box(index), self._starts[index]
        size = box.width * box.height * 3
        return self._data[start : start + size].reshape(box.height, box.width, 3)

    def rim(self, index: int) -> UInt8Array:
        """Return the rim of frame ``index``, the outermost 4 pixels of its crop of 328x328:
        (15552,) uint8 BGR, read-only, mapped. See ``compose.crop_rim``."""
        box = self.box(index)
        start = self._starts[index] + box.width * box.height * 3
        rim: UInt8Array = self._data[start : start + RIM_BYTES]
        return rim

    def mask(self, index: int) -> UInt8Array | None:
        """Return what is in front of the mouth in frame ``index``, (rect.height, rect.width) uint8,
        read-only, mapped: 255 where the mouth is shown, 0 where the frame stays, and between them a
        mixture; None where the mouth is shown in all of the crop rectangle."""
        if not self._masked[index]:
            return None
        box, rect = self.box(index), self.rect(index)
        start = self._starts[index] + box.width * box.height * 3 + RIM_BYTES
        size = rect.width * rect.height
        return self._data[start : start + size].reshape(rect.height, rect.width)


class Jpegs:
    """The opened part ``jpeg``: each frame as a JPEG file, in which the patch can be replaced.
    Frames are numbered from 0.

    ``container`` is the part's file. Raises ContainerDamagedError where its tables do not fit each
    other.
    """

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
            or not runs(starts, len(self._data))
            or not runs(row_starts, len(self._row_bounds))
        ):
            raise ContainerDamagedError(f"{container.path.name} has tables that do not add up")
        self._starts: list[int] = starts.tolist()
        self._row_starts: list[int] = row_starts.tolist()

    @property
    def size_bytes(self) -> int:
        """Bytes of what is kept of all frames."""
        return self._data.nbytes

    def stored(self, index: int) -> UInt8Array:
        """Return what is kept of frame ``index``: the bytes of its JPEG without the data of the box
        that a patch replaces (``Patches.box``), (length,) uint8, read-only, mapped."""
        return self._data[self._starts[index] : self._starts[index + 1]]

    def background(self, index: int, box: CropRect) -> Background:
        """Return frame ``index`` as a JPEG that is ready to have its patch replaced by
        ``PartialJpeg.encode``; ``box`` is what ``Patches.box`` returns for that frame."""
        rows = slice(self._row_starts[index], self._row_starts[index + 1])
        return Background(self.stored(index), box, self._row_bounds[rows])


def frame_count(container: Container) -> int:
    """Return how many frames the part in ``container`` has, at least 1. Raises
    ContainerDamagedError where it does not say so."""
    count = container.facts.get("frames")
    if not isinstance(count, int) or count < 1:
        raise ContainerDamagedError(f"{container.path.name} has no number of frames")
    return count


def encoder_version() -> str:
    """Return the name and version of the JPEG encoder, such as "opencv-4.12.0".

    A part ``jpeg`` is of use with the same version only: patches that are put into its files have
    to come from the same encoder.
    """
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


def runs(starts: npt.NDArray[np.int64], total: int) -> bool:
    """Return whether ``starts``, (n + 1,), are the offsets of n pieces that fill ``total`` bytes,
    none of them empty: the first is 0, the last is ``total``, and each is above the one before."""
    return bool(starts[0] == 0 and starts[-1] == total and (np.diff(starts) > 0).all())
