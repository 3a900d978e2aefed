"""Masks: pictures that say where a frame shows the mouth, and where what is in front of it, such as
hair or a microphone.

A package may have a folder of them, PNG files with the numbers of the frames that they are for. A
mask is as large as its frame: white is where the mouth is shown, black where the frame stays as it
is; between the two both are mixed.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.images import read_image
from lipwire.avatars.locating import contained, reason_of
from lipwire.domain import AvatarInvalid, CropRect, UInt8Array
from lipwire.domain.avatarfiles import MASKS_NAME

_MASK: Final = re.compile(r"(?:mask_|frame_)?(\d{1,9})\.png", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Masks:
    """The masks of a package, PNG files in its folder ``masks``: pictures as large as their frames,
    white where the mouth is shown and black where the frame stays. ``paths`` has the file of each
    frame that has one, by the frame's number counted from 0, whatever number its file name has.
    ``root`` is the package's folder."""

    root: Path
    paths: Mapping[int, Path]
    """By the frame's number in the package, from 0."""

    def label(self, number: int) -> str:
        """Return the name of the mask of frame ``number``, for messages: "masks/0007.png". Raises
        KeyError where the frame has none."""
        path = self.paths[number]
        return (
            path.relative_to(self.root).as_posix()
            if path.is_relative_to(self.root)
            else f"{MASKS_NAME}/{path.name}"
        )

    def read(self, number: int, size: tuple[int, int]) -> UInt8Array | None:
        """Return the mask of frame ``number``, (height, width) uint8: 255 where the mouth is shown,
        0 where the frame stays, and between them a mixture; None where the frame has none. Raises
        AvatarInvalid where the file cannot be read, has colours, or is not of ``size``, the frame's
        (width, height)."""
        path = self.paths.get(number)
        if path is None:
            return None
        label = self.label(number)
        pixels = read_image(path, label)
        seen = (pixels.shape[1], pixels.shape[0])
        if seen != size:
            raise AvatarInvalid(
                f"{label} is {seen[0]}x{seen[1]}; a mask has to be as large as its frame,"
                f" {size[0]}x{size[1]}"
            )
        if (pixels[..., :1] != pixels).any():
            raise AvatarInvalid(
                f"{label} has colours; a mask is white where the mouth is shown, black where the"
                " frame stays, and grey between"
            )
        return np.ascontiguousarray(pixels[..., 0])

    def under(self, number: int, rect: CropRect, size: tuple[int, int]) -> UInt8Array | None:
        """Return the part of the mask of frame ``number`` under the crop rectangle ``rect``,
        (rect.height, rect.width) uint8: 255 where the mouth is shown, 0 where the frame stays, and
        between them a mixture. None where the frame has no mask, or the mouth is shown in all of
        that part. ``size`` is the frame's (width, height). Raises AvatarInvalid where the file
        cannot be read, has colours, or is not of ``size``."""
        mask = self.read(number, size)
        if mask is None:
            return None
        part = np.ascontiguousarray(mask[rect.y1 : rect.y2, rect.x1 : rect.x2])
        return None if (part == 255).all() else part


def masks_in(root: Path, pictures: Pictures, findings: Findings) -> Masks | None:
    """Return the masks in the folder ``masks`` of the package in the folder ``root``, whose frames
    are ``pictures``; None where there is no such folder or no mask in it, or something is wrong,
    which is put into ``findings`` as an error. Files are not decoded. Files that are not used, and
    frames without a mask where others have one, are put there as warnings."""
    if not os.path.lexists(root / MASKS_NAME):
        return None
    folder = contained(root, MASKS_NAME, MASKS_NAME, findings)
    if folder is None:
        return None
    if not folder.is_dir():
        findings.error(f"{MASKS_NAME} is no folder; it has to be one of PNG images")
        return None
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        findings.error(f"{MASKS_NAME}/ cannot be read; {reason_of(error)}")
        return None
    return _numbered(root, folder, names, pictures, findings)


def _numbered(
    root: Path, folder: Path, names: list[str], pictures: Pictures, findings: Findings
) -> Masks | None:
    count = len(pictures.frame_paths) or None
    paths: dict[int, Path] = {}
    unused = []
    for name in names:
        match = _MASK.fullmatch(name)
        number = -1 if match is None else int(match[1]) - pictures.first_number
        if number < 0 or (count is not None and number >= count):
            unused.append(name)
            continue
        label = f"{MASKS_NAME}/{name}"
        if number in paths:
            findings.error(f"{label} and {MASKS_NAME}/{paths[number].name} are for one frame")
            return None
        path = folder / name
        if path.is_symlink():
            followed = contained(root, path.relative_to(root).as_posix(), label, findings)
            if followed is None:
                return None
            path = followed
        if not path.is_file():
            findings.error(f"{label} is not a file")
            return None
        paths[number] = path
    if unused:
        more = f" and {len(unused) - 1} more" if len(unused) > 1 else ""
        findings.warning(
            f"{MASKS_NAME}/{unused[0]}{more} is not used; masks are PNG files with the numbers of"
            " their frames"
        )
    if paths and count is not None and len(paths) < count:
        findings.warning(
            f"{MASKS_NAME}/ has masks for {len(paths)} of {count} frames; in the others all of the"
            " mouth is shown"
        )
    return Masks(root, paths) if paths else None
