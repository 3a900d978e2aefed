"""An avatar, opened: what the network sees of each frame, and each frame with a mouth on it."""

import time
from pathlib import Path
from typing import Final, Self

import cv2
import numpy as np

from lipwire.avatars.closedeyes import beyond, shown_frames_of
from lipwire.avatars.compiled.compiling import DEFAULT_QUALITY, CompiledParts, compile_avatar
from lipwire.avatars.compiled.parts import ALWAYS, FRAMES_ONLY, WHOLE, Jpegs, Part, Patches
from lipwire.avatars.frames.framecache import FrameCache, shared_cache
from lipwire.avatars.frames.picturenotes import compiled_notes
from lipwire.avatars.frames.sources import open_source
from lipwire.avatars.frames.wholeframes import FORMS, Form, WholeFrames
from lipwire.avatars.observer import NO_OBSERVER, FrameObserver
from lipwire.avatars.package import BOTH, AvatarPackage, read_package
from lipwire.avatars.packagesettings import SETTINGS_NAME, AvatarSettings
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.compose import BorderPx, PartialJpeg, network_crop, paste_mouth, paste_patch_i420
from lipwire.config import usable_cores
from lipwire.domain import (
    MOUTH_PX,
    AvatarFiles,
    AvatarInvalid,
    CompileProgress,
    CropRect,
    Crops,
    InvalidInput,
    Revision,
    UInt8Array,
    ping_pong,
)
from lipwire.domain.closing import Closing

_PAGE_BYTES: Final = 4096


class Avatar(Closing):
    """An opened avatar: its frames, from which pictures with mouths on them are made, and where its
    network lies. A context manager.

        with Avatar.open(find_avatar("demo"), parts=frozenset({"jpeg"})) as avatar:
            crop = avatar.crop(0)                 # what the network sees of the first frame
            picture = avatar.jpeg(0, mouth)       # that frame with the mouth the network made

    Frame numbers start at 0 and have no upper limit: past the last frame they run back and forth.
    Mouths and crops are (320, 320, 3) uint8 in the package's colour order (``colour_order`` in its
    settings, "bgr" or "rgb"); frames are always BGR. The avatar's compiled parts, files that its
    frames and network were made into, are mapped into memory; whole frames are decoded from the
    package's files when they are needed, and kept in a cache. Methods may be called from several
    threads.

    Once the avatar is closed, the methods that return frames or crops, and ``preload``, raise
    InvalidInput; arrays returned before stay valid. ``planes`` and ``pixels``, which decode whole
    frames, raise AvatarInvalid where the package's frames were changed after it was compiled.
    """

    __slots__ = (
        "_compiled",
        "_jpegs",
        "_layout",
        "_model_path",
        "_package",
        "_parts",
        "_patches",
        "_swap_colours",
        "_whole",
        "border_px",
        "closed_eyes",
        "encoder_path",
        "files",
        "frame_count",
        "height",
        "info",
        "name",
        "network_source",
        "notes",
        "observer",
        "path",
        "rects",
        "revision",
        "source_frame_count",
        "width",
    )

    def __init__(
        self,
        package: AvatarPackage,
        compiled: CompiledParts,
        quality: int,
        parts: frozenset[Part] = frozenset(),
        cache: FrameCache | None = None,
    ) -> None:
        """Use ``open`` instead of calling this. ``compiled`` is what ``compile_avatar`` returned
        for ``package``, with the part ``patches``; ``quality``, ``parts`` and ``cache`` are as for
        ``open``. Raises InvalidInput where ``compiled`` has no patches, AvatarInvalid where the
        settings name frames with closed eyes that are not there, or the package's video cannot be
        opened."""
        if compiled.patches is None:
            raise InvalidInput(f"avatar {package.name} is not compiled; open it with Avatar.open")
        lost = beyond(package.settings.closed_eyes, compiled.patches.origins.sources)
        if lost is not None:
            raise AvatarInvalid(f"{SETTINGS_NAME}: {lost}")
        self.observer: FrameObserver = NO_OBSERVER
        """Told how long frames take to be composed; whoever opens an avatar may set another."""
        self._patches: Patches | None = compiled.patches
        self._jpegs: Jpegs | None = compiled.jpegs
        self._swap_colours = package.settings.colour_order == "rgb"
        self.path: Path = package.path
        self.files: AvatarFiles = package.files
        self.name: str = package.name
        self.revision: Revision = compiled.revision
        self.info: AvatarSettings = package.settings
        self.border_px: BorderPx = package.settings.crop_border
        self.encoder_path: Path | None = package.encoder_path
        self._model_path: Path | None = compiled.networks.get("model")
        self.network_source: Path | None = package.model_path if self._model_path else None
        """The ONNX file of its network; None where it was opened without the network."""
        self.width: int = compiled.patches.width
        self.height: int = compiled.patches.height
        self.frame_count: int = compiled.patches.count
        """Frames that are shown, 25 for each second."""
        self.source_frame_count: int = compiled.patches.origins.sources
        """Frames of the package's folder or video."""
        self.closed_eyes: frozenset[int] = shown_frames_of(
            package.settings.closed_eyes, compiled.patches.origins.shown
        )
        """Numbers of the frames that are shown with closed eyes, as the package says."""
        self.rects: tuple[CropRect, ...] = tuple(
            map(compiled.patches.rect, range(self.frame_count))
        )
        """Crop rectangles of the frames that are shown, in their order."""
        self.notes: tuple[str, ...] = tuple(
            compiled_notes(package.pictures, compiled.patches.origins)
        )
        """What people should know of how it is shown, a line each."""
        self._layout = PartialJpeg(self.width, self.height, quality) if compiled.jpegs else None
        self._parts = parts
        self._whole: WholeFrames | None = None
        if parts & WHOLE:
            even = (self.width + self.width % 2) * (self.height + self.height % 2)
            self._whole = WholeFrames(
                open_source(package.pictures, compiled.patches.origins, usable_cores()),
                self.frame_count,
                even,
                cache or shared_cache(),
                compiled.frames,
                self.name,
            )

    @classmethod
    def open(
        cls,
        where: AvatarFiles | Path | str,
        *,
        parts: frozenset[Part] = frozenset(),
        with_model: bool = True,
        quality: int = DEFAULT_QUALITY,
        progress: CompileProgress | None = None,
        cache: FrameCache | None = None,
        sandbox: Sandbox | None = None,
    ) -> Self:
        """Open the avatar whose files are ``where``, or whose package is the folder ``where``. The
        caller closes it.

        ``parts`` says what the avatar will be used for: ``jpeg``, ``planes`` or ``pixels`` for the
        methods of these names, ``gpu`` for the network on a GPU; crops need none. Where
        ``with_model`` is False the network is not looked for, and only frames are available.
        ``quality`` is that of JPEG, 1 to 100. ``cache`` keeps whole frames; None is the one that
        all avatars of this process share (``shared_cache``).

        Parts that are not compiled yet, or whose files have changed since, are compiled first,
        which takes seconds to minutes; otherwise opening takes milliseconds. ``progress(done,
        total, what)`` is called in this thread while something is compiled: ``done`` of ``total``
        steps, such as frames, of the task ``what`` are finished, and ``total`` is 0 where it is not
        known. With a ``sandbox`` the compiling is done in a process of its own, within its limits.

        Raises NotFound where nothing is there, AvatarInvalid where the package is broken or changes
        meanwhile, InvalidInput for unknown parts or another quality, StorageFailed where what was
        compiled cannot be written, and with a sandbox also AvatarInvalid where its limits are
        exceeded and Unavailable where its process cannot be started.
        """
        package = read_package(where, BOTH if with_model else frozenset({"frames"}))
        wanted = parts | (ALWAYS if with_model else FRAMES_ONLY)
        compiled = compile_avatar(
            package, parts=wanted, quality=quality, progress=progress, sandbox=sandbox
        )
        return cls(package, compiled, quality, parts, cache)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._patches is None

    @property
    def model_path(self) -> Path:
        """The compiled network, a folder for ``Engine.load``.

        Raises InvalidInput where the avatar was opened without its network.
        """
        if self._model_path is None:
            raise InvalidInput(f"avatar {self.name} was opened without its network")
        return self._model_path

    def crops(self, first: int, count: int) -> Crops:
        """Return the crops of ``count`` frames from number ``first`` on, what the network sees of
        them: (count, 320, 320, 3) uint8 in the package's colour order. Both numbers are 0 or above;
        past the last frame the frames run back and forth. Raises InvalidInput for a negative
        number, and once closed."""
        _check_not_negative("number of frames", count)
        crops = np.empty((count, MOUTH_PX, MOUTH_PX, 3), np.uint8)
        for index in range(count):
            crops[index] = self.crop(first + index)
        return crops

    def crop(self, index: int) -> UInt8Array:
        """Return the crop of frame ``index``, what the network sees of it: (320, 320, 3) uint8 in
        the package's colour order. Raises InvalidInput for a negative number, and once closed."""
        patches, number = self._at(index)
        box = patches.box(number)
        crop = network_crop(
            patches.patch(number), patches.rect(number), self.border_px, (box.x1, box.y1)
        )
        return _swapped(crop) if self._swap_colours else crop

    def jpeg(self, index: int, mouth: UInt8Array | None) -> bytes:
        """Return frame ``index``, 0 or above, as the bytes of a JPEG file, with ``mouth`` on it;
        None leaves the frame as it was filmed.

        ``mouth`` is (320, 320, 3) uint8 in the package's colour order. Raises InvalidInput where
        ``jpeg`` was not among the ``parts`` that the avatar was opened with or the mouth has
        another shape, and once closed.
        """
        started_s = time.perf_counter()
        jpegs = self._jpegs  # taken before the patches, which close() takes away first
        patches, number = self._at(index)
        if jpegs is None or self._layout is None:
            raise self._not_opened("jpeg")
        background = jpegs.background(number, patches.box(number))
        patch = patches.patch(number)
        if mouth is not None:
            patch = self._patch_with(patches, number, mouth)
        pasted_s = time.perf_counter()
        data = self._layout.encode(background, patch)
        ended_s = time.perf_counter()
        self.observer.composed(ended_s - started_s, ended_s - pasted_s)
        return data

    def planes(
        self, index: int, mouth: UInt8Array | None, out: UInt8Array | None = None
    ) -> UInt8Array:
        """Return frame ``index``, 0 or above, as I420, (even height * 3/2, even width) uint8, with
        ``mouth`` on it; None leaves the frame as it was filmed. Waits until the frame is decoded
        where it is not in the cache.

        ``mouth`` is (320, 320, 3) uint8 in the package's colour order. ``out`` is a writable uint8
        array of the result's shape, which is filled and returned; with None a new array is made.
        Raises InvalidInput where ``planes`` was not among the ``parts`` that the avatar was opened
        with, or the mouth or ``out`` has another shape or dtype, and once closed; AvatarInvalid
        where the package's frames were changed.
        """
        started_s = time.perf_counter()
        patches, number = self._at(index)
        planes = _copied(self._whole_frame("planes", index, number), out)
        if mouth is not None:
            box = patches.box(number)
            paste_patch_i420(planes, self._patch_with(patches, number, mouth), box.x1, box.y1)
        self.observer.composed(time.perf_counter() - started_s)
        return planes

    def pixels(
        self, index: int, mouth: UInt8Array | None, out: UInt8Array | None = None
    ) -> UInt8Array:
        """Return frame ``index``, 0 or above, as (height, width, 3) uint8 BGR, with ``mouth`` on
        it; None leaves the frame as it was filmed. Waits until the frame is decoded where it is not
        in the cache.

        ``mouth`` is (320, 320, 3) uint8 in the package's colour order. ``out`` is a writable uint8
        array of the result's shape, which is filled and returned; with None a new array is made.
        Raises InvalidInput where ``pixels`` was not among the ``parts`` that the avatar was opened
        with, or the mouth or ``out`` has another shape or dtype, and once closed; AvatarInvalid
        where the package's frames were changed.
        """
        started_s = time.perf_counter()
        patches, number = self._at(index)
        frame = _copied(self._whole_frame("pixels", index, number), out)
        if mouth is not None:
            self._paste(frame, (0, 0), patches, number, mouth)
        self.observer.composed(time.perf_counter() - started_s)
        return frame

    def look_ahead(self, index: int) -> None:
        """Begin to decode the frames that follow frame ``index``, 0 or above, for later calls of
        ``planes``; returns at once, while other threads decode. It is meant for callers that show
        frames when they are due and leave out those that are late. Does nothing once closed, and
        where ``planes`` was not among the ``parts`` that the avatar was opened with. Raises
        InvalidInput for a negative number."""
        _check_not_negative("frame number", index)
        patches, whole = self._patches, self._whole
        if patches is None or whole is None or "planes" not in self._parts:
            return
        number = ping_pong(index, patches.count)
        whole.look_ahead("planes", number, self._step_at(index, number))

    def _step_at(self, index: int, number: int) -> int:
        return 1 if ping_pong(index + 1, self.frame_count) >= number else -1

    @property
    def mapped_bytes(self) -> int:
        """How many bytes of compiled files are mapped into memory for the frames; 0 once closed.
        The system decides how much of that is in memory at a time.

        Whole frames are not counted: the cache has a budget of its own.
        """
        patches, jpegs = self._patches, self._jpegs
        if patches is None:
            return 0
        return patches.size_bytes + (0 if jpegs is None else jpegs.size_bytes)

    def preload(self, frames: int) -> int:
        """Read the compiled data of the first ``frames`` frames, or of all where there are fewer,
        into memory, and return the number of frames read. Waits until it is done.

        Where the avatar was opened with ``planes`` or ``pixels``, their whole frames are decoded
        too, as many as the cache has room for; the number returned does not say how many. The
        system may drop mapped memory again when memory runs short. Raises InvalidInput for a
        negative number and once closed, AvatarInvalid where the package's frames were changed.
        """
        _check_not_negative("number of frames", frames)
        patches, _ = self._at(0)
        jpegs, whole = self._jpegs, self._whole
        count = min(frames, patches.count)
        for index in range(count):
            _touch(patches.patch(index))
            _touch(patches.rim(index))
            if jpegs is not None:
                _touch(jpegs.stored(index))
        if whole is not None:
            for form in FORMS:
                if form in self._parts:
                    whole.preload(form, count)
        return count

    def close(self) -> None:
        """Close maps and files, and drop whole frames.

        Threads still inside a method finish it; only in those that wait for a frame to be decoded
        InvalidInput is raised.
        """
        self._patches = self._jpegs = None
        if self._whole is not None:
            self._whole.close()

    def _at(self, index: int) -> tuple[Patches, int]:
        patches = self._patches
        if patches is None:
            raise InvalidInput(f"avatar {self.name} is closed; open it again")
        _check_not_negative("frame number", index)
        return patches, ping_pong(index, patches.count)

    def _whole_frame(self, form: Form, index: int, number: int) -> UInt8Array:
        if self._whole is None or form not in self._parts:
            raise self._not_opened(form)
        return self._whole.frame(form, number, self._step_at(index, number))

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
            patches.mask(number),
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


def _check_not_negative(what: str, number: int) -> None:
    if number < 0:
        raise InvalidInput(f"{what} is {number}; allowed are 0 and above")
