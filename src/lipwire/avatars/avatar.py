"""An avatar, opened: what the network sees of each frame, and each frame with a mouth on it."""

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import cv2
import numpy as np

from lipwire.avatars.compiling import DEFAULT_QUALITY, CompiledParts, Progress, compile_avatar
from lipwire.avatars.package import AvatarPackage, read_package
from lipwire.avatars.parts import Jpegs, Part, Patches
from lipwire.avatars.settings import AvatarSettings
from lipwire.compose import BorderPx, PartialJpeg, network_crop, paste_mouth, paste_patch_i420
from lipwire.domain import MOUTH_PX, CropRect, InvalidInput, UInt8Array, ping_pong

_PAGE_BYTES: Final = 4096


class Avatar:
    """A compiled avatar, memory-mapped. A context manager.

        with Avatar.open(find_avatar("demo"), parts=frozenset({"jpeg"})) as avatar:
            crop = avatar.crop(0)                 # what the network sees of the first frame
            picture = avatar.jpeg(0, mouth)       # that frame with the mouth the network made

    Frame numbers start at 0 and never end: past the last frame they run back and forth. Mouths and
    crops are (320, 320, 3) uint8 in the package's colour order; frames are BGR whatever that is.
    Methods may be called from several threads. Once it is closed every method raises InvalidInput;
    arrays handed out stay good.
    """

    __slots__ = (
        "_compiled",
        "_jpegs",
        "_layout",
        "_package",
        "_patches",
        "_pixels",
        "_planes",
        "_swap_colours",
        "border_px",
        "encoder_path",
        "frame_count",
        "height",
        "info",
        "model_path",
        "name",
        "path",
        "rects",
        "revision",
        "width",
    )

    def __init__(self, package: AvatarPackage, compiled: CompiledParts, quality: int) -> None:
        """From what ``compile_avatar`` gave for ``package``; people call ``open``."""
        if compiled.patches is None or compiled.model_path is None:
            raise InvalidInput(f"avatar {package.name} is not compiled; open it with Avatar.open")
        self._patches: Patches | None = compiled.patches
        self._jpegs: Jpegs | None = compiled.jpegs
        self._planes: UInt8Array | None = compiled.planes
        self._pixels: UInt8Array | None = compiled.pixels
        self._swap_colours = package.settings.colour_order == "rgb"
        self.path: Path = package.path
        self.name: str = package.name
        self.revision: str = compiled.revision
        """Says by content which form of the package this is; the same on every machine."""
        self.info: AvatarSettings = package.settings
        self.border_px: BorderPx = package.settings.crop_border
        self.encoder_path: Path | None = package.encoder_path
        self.model_path: Path = compiled.model_path
        """The compiled network: a folder for ``Engine.load``."""
        self.width: int = compiled.patches.width
        self.height: int = compiled.patches.height
        self.frame_count: int = compiled.patches.count
        self.rects: tuple[CropRect, ...] = package.rects[: self.frame_count]
        self._layout = PartialJpeg(self.width, self.height, quality) if compiled.jpegs else None

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        parts: frozenset[Part] = frozenset(),
        quality: int = DEFAULT_QUALITY,
        progress: Progress | None = None,
    ) -> Self:
        """The avatar of the package in folder ``path``; ``parts`` are those that will be asked for.

        What is missing or stale is compiled first, which takes seconds to minutes; else it takes
        milliseconds. Raises NotFound, AvatarInvalid, InvalidInput, StorageFailed; see
        ``read_package`` and ``compile_avatar``.
        """
        package = read_package(Path(path))
        compiled = compile_avatar(package, parts=parts, quality=quality, progress=progress)
        return cls(package, compiled, quality)

    @property
    def closed(self) -> bool:
        return self._patches is None

    def crop(self, index: int) -> UInt8Array:
        """What the network sees of frame ``index``: (320, 320, 3) uint8, package's colour order."""
        patches, number = self._at(index)
        box = patches.box(number)
        crop = network_crop(
            patches.patch(number), patches.rect(number), self.border_px, (box.x1, box.y1)
        )
        return _swapped(crop) if self._swap_colours else crop

    def jpeg(self, index: int, mouth: UInt8Array | None) -> bytes:
        """Frame ``index`` as a JPEG, with ``mouth`` on it; None leaves the frame as it was filmed.

        Raises InvalidInput where the part ``jpeg`` was not opened or the mouth has another shape.
        """
        jpegs = self._jpegs  # taken before the patches, which close() takes away first
        patches, number = self._at(index)
        if jpegs is None or self._layout is None:
            raise self._not_opened("jpeg")
        if mouth is None:
            return jpegs.jpeg(number).tobytes()
        background = jpegs.background(number, patches.box(number))
        return self._layout.encode(background, self._patch_with(patches, number, mouth))

    def planes(
        self, index: int, mouth: UInt8Array | None, out: UInt8Array | None = None
    ) -> UInt8Array:
        """Frame ``index`` as I420, (even height * 3/2, even width) uint8, with ``mouth`` on it.

        ``out`` is such an array to write to and return, so that a caller who is done with the last
        frame need not have a new one. Raises InvalidInput as ``jpeg``, for the part ``planes``.
        """
        mapped = self._planes
        patches, number = self._at(index)
        if mapped is None:
            raise self._not_opened("planes")
        planes = _copied(mapped[number], out)
        if mouth is not None:
            box = patches.box(number)
            paste_patch_i420(planes, self._patch_with(patches, number, mouth), box.x1, box.y1)
        return planes

    def pixels(
        self, index: int, mouth: UInt8Array | None, out: UInt8Array | None = None
    ) -> UInt8Array:
        """Frame ``index``, (height, width, 3) uint8 BGR, with ``mouth`` on it; ``out`` as for
        ``planes``.

        Raises InvalidInput as ``jpeg``, for the part ``pixels``.
        """
        mapped = self._pixels
        patches, number = self._at(index)
        if mapped is None:
            raise self._not_opened("pixels")
        frame = _copied(mapped[number], out)
        if mouth is not None:
            self._paste(frame, (0, 0), patches, number, mouth)
        return frame

    @property
    def mapped_bytes(self) -> int:
        """Size of what is mapped for the frames; how much of it is in memory the system decides."""
        patches = self._patches
        if patches is None:
            return 0
        wholes = (self._planes, self._pixels)
        jpeg_bytes = 0 if self._jpegs is None else self._jpegs.size_bytes
        return patches.size_bytes + jpeg_bytes + sum(w.nbytes for w in wholes if w is not None)

    def preload(self, frames: int) -> int:
        """Have the first ``frames`` frames read into memory, all where there are fewer; returns how
        many those are.

        The system may drop them again when memory runs short. Raises InvalidInput once closed.
        """
        patches, _ = self._at(0)
        jpegs, wholes = self._jpegs, (self._planes, self._pixels)
        count = min(frames, patches.count)
        for index in range(count):
            _touch(patches.patch(index))
            _touch(patches.rim(index))
            if jpegs is not None:
                _touch(jpegs.jpeg(index))
            for whole in wholes:
                if whole is not None:
                    _touch(whole[index])
        return count

    def close(self) -> None:
        """Let the maps go. Threads still inside a method finish it."""
        self._patches = self._jpegs = self._planes = self._pixels = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _at(self, index: int) -> tuple[Patches, int]:
        patches = self._patches
        if patches is None:
            raise InvalidInput(f"avatar {self.name} is closed; open it again")
        if index < 0:
            raise InvalidInput(f"frame number is {index}; allowed are 0 and above")
        return patches, ping_pong(index, patches.count)

    def _patch_with(self, patches: Patches, number: int, mouth: UInt8Array) -> UInt8Array:
        box = patches.box(number)
        patch = patches.patch(number).copy()
        self._paste(patch, (box.x1, box.y1), patches, number, mouth)
        return patch

    def _paste(
        self,
        pixels: UInt8Array,
        origin: tuple[int, int],
        patches: Patches,
        number: int,
        mouth: UInt8Array,
    ) -> None:
        paste_mouth(
            pixels,
            origin,
            self._in_bgr(mouth),
            patches.rect(number),
            self.border_px,
            patches.rim(number),
        )

    def _in_bgr(self, mouth: UInt8Array) -> UInt8Array:
        # Mouths of another shape are refused by paste_mouth, which says what is allowed.
        fits = mouth.shape == (MOUTH_PX, MOUTH_PX, 3) and mouth.dtype == np.uint8
        return _swapped(mouth) if self._swap_colours and fits else mouth

    def _not_opened(self, part: Part) -> InvalidInput:
        return InvalidInput(
            f"avatar {self.name} was opened without the part {part}; name it in parts"
        )


def _touch(mapped: UInt8Array) -> None:
    """Read a byte of each page."""
    mapped.reshape(-1)[::_PAGE_BYTES].max()


def _swapped(pixels: UInt8Array) -> UInt8Array:
    """RGB from BGR or the other way round."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def _copied(mapped: UInt8Array, out: UInt8Array | None) -> UInt8Array:
    if out is None:
        return mapped.copy()
    if out.shape != mapped.shape or out.dtype != np.uint8 or not out.flags.writeable:
        raise InvalidInput(
            f"out is {out.dtype} of shape {out.shape}; it has to be writable uint8 of shape"
            f" {mapped.shape}"
        )
    np.copyto(out, mapped)
    return out
