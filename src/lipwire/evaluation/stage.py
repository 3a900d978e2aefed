"""Having an avatar speak for an evaluation: any recording in, what the crop rectangle shows in each
frame out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipwire.avatars import read_package
from lipwire.avatars.frames.frameloading import shown_frames
from lipwire.avatars.frames.origins import Origins
from lipwire.compose import BorderPx, network_crop, paste_mouth
from lipwire.domain import CropRect, Float32Array, InvalidInput, Progress, UInt8Array, ping_pong
from lipwire.evaluation.figures import seam_levels
from lipwire.evaluation.renderer import Renderer
from lipwire.session import Performer, animate

MARGIN_PX = 2
"""Pixels kept around the crop rectangle, to look for a seam."""


@dataclass(frozen=True, slots=True)
class Stage:
    """An avatar that is evaluated, opened to speak (``performer``), with a part of each frame in
    memory: ``patches``, (h, w, 3) uint8 BGR each, show the crop rectangle, which the network draws
    anew, and up to 2 pixels around it; ``inner`` is where in each patch the rectangle is. ``masks``
    has, for each frame, (rectangle height, rectangle width) uint8 with 0 where something is in
    front of the mouth, or None where nothing is. ``border_px`` is how many pixels on each side of
    the resized crop the network does not see; ``swap`` says that the package's colours are RGB."""

    performer: Performer
    patches: list[UInt8Array]  # of each frame: its rectangle and MARGIN_PX around, BGR
    inner: list[CropRect]  # the rectangle inside the patch
    masks: list[UInt8Array | None]  # what is in front of the mouth, of each frame
    border_px: BorderPx
    swap: bool  # the package's colours are RGB

    def composited(self, index: int, mouth: UInt8Array) -> tuple[UInt8Array, int]:
        """Return (a copy of the patch with ``mouth`` on it, the number of its frame) for frame
        ``index``, 0 or above, of the walk back and forth over the avatar's frames. The number is
        from 0 to the number of the avatar's frames - 1.

        ``mouth`` is (320, 320, 3) uint8 in the package's colour order; the patch is the crop
        rectangle and up to 2 pixels around, (h, w, 3) uint8 BGR. Raises InvalidInput for a mouth
        of another shape or dtype.
        """
        number = ping_pong(index, len(self.patches))
        patch = self.patches[number].copy()
        given = np.ascontiguousarray(mouth[..., ::-1]) if self.swap else mouth
        box, mask = self.inner[number], self.masks[number]
        paste_mouth(patch, (0, 0), given, box, self.border_px, mask=mask)
        return patch, number

    def inside(self, patch: UInt8Array, number: int) -> UInt8Array:
        """Return what the crop rectangle shows in ``patch``, which is that of the avatar's frame
        ``number``, 0 to the number of its frames - 1: (rectangle height, rectangle width, 3) uint8
        BGR, a view."""
        box = self.inner[number]
        return patch[box.y1 : box.y2, box.x1 : box.x2]


@dataclass(frozen=True, slots=True)
class Performance:
    """What an avatar showed for one recording: ``pictures``, (T, h, w, 3) uint8 BGR, the content of
    the crop rectangle in each frame, and ``seam``, (N,) float32, how visible the border of the
    rectangle is, in levels of 0-255 (see ``seam_levels``), one number for each pixel of the border
    in each frame."""

    pictures: UInt8Array  # (T, h, w, 3) the crop rectangle of each frame
    seam: Float32Array  # (N,) levels, over all frames and border pixels


def set_stage(path: Path, performer: Performer) -> Stage:
    """Return the avatar in the folder ``path`` with its frames in memory, ready to be evaluated;
    ``performer`` is the same avatar, opened to speak, and stays the caller's to close.

    Raises InvalidInput where its crop rectangles differ in size, NotFound and AvatarInvalid where
    the package is missing or broken.
    """
    package = read_package(path)
    patches, inner, masks = [], [], []
    for source, task in shown_frames(package.pictures, Origins()):
        frame, rect = task(), package.rects[source]
        height, width = frame.shape[:2]
        x1, y1 = max(0, rect.x1 - MARGIN_PX), max(0, rect.y1 - MARGIN_PX)
        x2, y2 = min(width, rect.x2 + MARGIN_PX), min(height, rect.y2 + MARGIN_PX)
        patches.append(frame[y1:y2, x1:x2].copy())
        seen = package.masks
        masks.append(None if seen is None else seen.under(source, rect, (width, height)))
        inner.append(CropRect(rect.x1 - x1, rect.y1 - y1, rect.x2 - x1, rect.y2 - y1))
    if len({(box.width, box.height) for box in inner}) != 1:
        raise InvalidInput("the crop rectangles differ in size; an evaluation needs one size")
    settings = package.settings
    swap = settings.colour_order == "rgb"
    return Stage(performer, patches, inner, masks, settings.crop_border, swap)


def perform(stage: Stage, pcm: Float32Array, told: Callable[[], None]) -> Performance:
    """Have the avatar of ``stage`` speak ``pcm``, (samples,) float32 mono at 16 kHz in [-1, 1],
    from its first frame on, and return what it showed; ``told`` is called without arguments after
    each frame. Raises InvalidInput for another shape or type of ``pcm``, and for NaN or infinite
    samples."""
    pictures, seams = [], []
    for batch in animate(stage.performer, pcm):
        for offset, mouth in enumerate(batch.mouths):
            patch, number = stage.composited(batch.background + offset, mouth)
            pictures.append(stage.inside(patch, number))
            seams.append(seam_levels(patch, stage.patches[number], stage.inner[number]))
            told()
    return Performance(np.stack(pictures), np.concatenate(seams))


def rendered(stage: Stage, renderer: Renderer, controls: Float32Array) -> UInt8Array:
    """Return what the crop rectangle shows in each frame when the mouths are made from
    ``controls``, (T, K) float32 in [0, 1], at least one frame, and not from speech: (T, h, w, 3)
    uint8 BGR. Frame 0 is the avatar's first.

    ``renderer`` is what ``controls_renderer`` returned for the network of the avatar of ``stage``.
    """
    pictures = []
    for index, row in enumerate(controls):
        number = ping_pong(index, len(stage.patches))
        patch = stage.patches[number]
        crop = network_crop(patch, stage.inner[number], stage.border_px)
        given = np.ascontiguousarray(crop[..., ::-1]) if stage.swap else crop
        patch, number = stage.composited(index, renderer(given, row))
        pictures.append(stage.inside(patch, number))
    return np.stack(pictures)


def teller(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return a function without arguments that is to be called after each frame. It calls
    ``progress(done, total)`` with how many frames are done, at most ``total``; it does nothing
    where ``progress`` is None."""
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    return told
