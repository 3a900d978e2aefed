"""The frames of a source: a folder of images with any pattern of numbers in their names, or a
video."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from lipwire.avatars.frames.framefiles import Pictures
from lipwire.avatars.frames.frameloading import frame_tasks
from lipwire.avatars.frames.images import read_image
from lipwire.avatars.frames.origins import Origins
from lipwire.avatars.importing.sources import followed
from lipwire.avatars.locating import reason_of
from lipwire.domain import AvatarInvalid, UInt8Array

_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg"})
_DIGITS: Final = re.compile(r"\d{1,9}", re.ASCII)
_SAME_DB: Final = 28.0
"""Peak signal to noise from which on two pictures are one, saved in two ways: a JPEG of bad quality
has more, another frame of a person who moves has less."""
_COMPARED: Final = 3
"""Of frames that are there in two forms, so many are compared."""


@dataclass(frozen=True, slots=True)
class NumberedImages:
    """The images of a folder by the numbers in their names.

    ``paths`` has the file of each number, in ascending order of the numbers. ``doubled`` are
    numbers that had a second file, with the same picture, ``unused`` the names of images that have
    another pattern.
    """

    folder: Path
    paths: dict[int, Path]
    doubled: tuple[int, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def gaps(self) -> list[int]:
        """The numbers that are missing between the first and the last."""
        numbers = list(self.paths)
        return sorted(set(range(numbers[0], numbers[-1] + 1)) - self.paths.keys())


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What decoding a video has shown: ``count``, how many frames it has, ``size``, their (width,
    height), ``lost``, how many of its packets could not be decoded, and ``faulty``, the numbers of
    frames that are shown with faults."""

    count: int
    size: tuple[int, int]
    lost: int
    faulty: tuple[int, ...]


def numbered_images(folder: Path, root: Path, shown_as: str) -> NumberedImages | None:
    """Return the PNG and JPEG images in ``folder``; None where it holds none with a number.

    Names may have any pattern with one number that counts the frames: ``0.jpg``,
    ``frame_0000.png``, ``anna_2_00017.jpeg``. Of several patterns the one with the most files is
    used. Two files of one number are one frame where they show the same picture; a PNG is used
    rather than a JPEG.

    ``root`` is the folder that links must not lead out of, ``shown_as`` names ``folder`` in
    messages. Raises AvatarInvalid where it cannot be read, where two numbers in the names differ
    from file to file, and where one frame has two pictures.
    """
    by_pattern: dict[str, list[tuple[list[int], str]]] = {}
    images = _image_names(folder, root, shown_as)
    for name in images:
        stem = Path(name).stem
        numbers = [int(run) for run in _DIGITS.findall(stem)]
        if numbers:
            by_pattern.setdefault(_DIGITS.sub("#", stem).casefold(), []).append((numbers, name))
    if not by_pattern:
        return None
    pattern = max(by_pattern, key=lambda each: len(by_pattern[each]))
    chosen = by_pattern[pattern]
    place = _counting_place([numbers for numbers, _ in chosen], shown_as, chosen[0][1])
    by_number: dict[int, list[str]] = {}
    for numbers, name in chosen:
        by_number.setdefault(numbers[place], []).append(name)
    doubled = sorted(number for number, names in by_number.items() if len(names) > 1)
    for number in doubled[:_COMPARED]:
        _check_same(folder, by_number[number], number, shown_as)
    used = {name for _, name in chosen}
    return NumberedImages(
        folder,
        {number: folder / min(by_number[number], key=_preference) for number in sorted(by_number)},
        tuple(doubled),
        tuple(name for name in images if name not in used),
    )


def same_picture(first: UInt8Array, second: UInt8Array) -> bool:
    """Return whether ``first`` and ``second``, frames of (height, width, 3) uint8 BGR, are one
    picture that was saved in two ways, as PNG, JPEG or a video's frame: of one size, and with a
    peak signal to noise ratio of 28 dB or more."""
    return first.shape == second.shape and cv2.PSNR(first, second) >= _SAME_DB


def shows_the_same(images: NumberedImages, video: Path) -> bool:
    """Return whether the first frames of ``video`` and the first of ``images``, up to three, are
    the same pictures. False where the video cannot be decoded or an image cannot be read."""
    paths = list(images.paths.values())[:_COMPARED]
    try:
        with closing(frame_tasks(Pictures(video.parent, (), video))) as tasks:
            frames = [task() for task in islice(tasks, len(paths))]
        return len(frames) == len(paths) and all(
            same_picture(read_image(path, path.name), frame)
            for path, frame in zip(paths, frames, strict=True)
        )
    except AvatarInvalid:
        return False


def video_facts(video: Path) -> VideoFacts:
    """Decode all of ``video`` and return how many frames it has, their size, and what is damaged.
    Raises AvatarInvalid where it cannot be opened or decoded, or has no frames."""
    origins = Origins()
    size = None
    with closing(frame_tasks(Pictures(video.parent, (), video), origins)) as tasks:
        for task in tasks:
            if size is None:
                pixels = task()
                size = pixels.shape[1], pixels.shape[0]
    if size is None:
        raise AvatarInvalid(f"{video.name} has no frames")
    damage = origins.damage
    return VideoFacts(origins.sources, size, damage.lost, tuple(damage.frames))


def grey_images(paths: Sequence[Path]) -> list[UInt8Array]:
    """Return the images at ``paths`` in grey, (height, width) uint8 each, in their order; an empty
    list where one of them cannot be read: validating the package says that later."""
    try:
        return [_grey(read_image(path, path.name)) for path in paths]
    except AvatarInvalid:
        return []


def grey_frames(video: Path, indices: Sequence[int]) -> list[UInt8Array]:
    """Return the frames of ``video`` with the numbers ``indices``, at least one, rising from 0, in
    grey, (height, width) uint8 each; fewer where it has fewer frames. Raises AvatarInvalid where it
    cannot be decoded."""
    wanted = set(indices)
    with closing(frame_tasks(Pictures(video.parent, (), video))) as tasks:
        return [
            _grey(task())
            for index, task in enumerate(islice(tasks, max(wanted) + 1))
            if index in wanted
        ]


def _grey(pixels: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)


def _image_names(folder: Path, root: Path, shown_as: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if Path(entry.name).suffix.lower() in _SUFFIXES]
            for entry in found:
                if entry.is_symlink():
                    followed(Path(entry.path), root, f"{shown_as}/{entry.name}")
            return sorted(entry.name for entry in found if entry.is_file() and entry.name[0] != ".")
    except OSError as error:
        raise AvatarInvalid(f"{shown_as}/ cannot be read; {reason_of(error)}") from error


def _counting_place(rows: list[list[int]], shown_as: str, example: str) -> int:
    """Which of the numbers in names of one pattern counts the frames."""
    distinct = [len(Counter(column)) for column in zip(*rows, strict=True)]
    varying = [place for place, count in enumerate(distinct) if count > 1]
    if len(varying) > 1:
        raise AvatarInvalid(
            f"{shown_as}/{example}: {len(varying)} numbers in the names of the images there differ;"
            " one has to count the frames"
        )
    return varying[0] if varying else len(distinct) - 1


def _check_same(folder: Path, names: list[str], number: int, shown_as: str) -> None:
    first, *others = (read_image(folder / name, f"{shown_as}/{name}") for name in names)
    if not all(same_picture(first, other) for other in others):
        raise AvatarInvalid(
            f"{shown_as}/: frame {number} is there twice, as {' and '.join(sorted(names))}, with"
            " different pictures; one has to go"
        )


def _preference(name: str) -> tuple[bool, str]:
    return not name.lower().endswith(".png"), name
