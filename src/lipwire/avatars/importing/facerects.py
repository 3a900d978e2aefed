"""The crop rectangles of a source, and which frame each is of.

They are in a JSON file of the forms that packages have, or follow from landmarks, a file a frame.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.avatars.checks.problems import Findings, frames_shown
from lipwire.avatars.checks.rectanglechecks import misplaced
from lipwire.avatars.importing.landmarks import landmark_rectangle
from lipwire.avatars.importing.pictures import NumberedImages
from lipwire.avatars.importing.report import Report
from lipwire.avatars.importing.sources import Source, followed, label_of
from lipwire.avatars.locating import read_file
from lipwire.avatars.rectangles import (
    MAX_RECTANGLES_BYTES,
    WrittenRectangles,
    parse_written_rectangles,
)
from lipwire.domain import AvatarInvalid, CropRect
from lipwire.domain.avatarfiles import RECTANGLES_NAME

LANDMARKS: Final = "landmarks"
_PLACES: Final = (
    RECTANGLES_NAME,
    "cache/crop_rectangles.json",
    "crop_rectangles.json",
    "cache/crop_rects.json",
)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
_MOST_CUT: Final = 0.25
"""Of a square of landmarks, below the picture; of more the landmarks are of other pictures."""
_SMALL: Final = 0.5


@dataclass(frozen=True, slots=True)
class FaceSource:
    """Where the rectangles of a source come from: the JSON file ``path``, or the folder of
    landmarks ``path`` where ``landmarks`` is True; ``label`` names it in messages. ``unused`` names
    the folder of landmarks where there are both and the JSON file is used, else it is None."""

    path: Path
    label: str
    landmarks: bool
    unused: str | None = None


def find_rectangles(source: Source) -> FaceSource:
    """Return where the crop rectangles of ``source`` come from: the file ``source.rectangles``,
    else ``crop_rects.json`` or ``crop_rectangles.json`` in ``source.folder`` or its ``cache``, else
    the folder ``landmarks`` there, a file of points of the face for each frame. They are not read.
    Raises AvatarInvalid where there is none of these, the file that was named is not there, or a
    link leads out of ``source.folder`` and that is not allowed."""
    if source.rectangles is not None:
        if not source.rectangles.is_file():
            raise AvatarInvalid(f"{source.rectangles} is not there; it has to be a JSON file")
        return FaceSource(source.rectangles, label_of(source.rectangles, source.folder), False)
    landmarks = source.folder / LANDMARKS
    for place in _PLACES:
        path = source.folder / place
        if path.is_file():
            followed(path, source.folder, place)
            both = f"{LANDMARKS}/" if landmarks.is_dir() else None
            return FaceSource(path, place, False, both)
    if landmarks.is_dir():
        followed(landmarks, source.folder, LANDMARKS)
        return FaceSource(landmarks, f"{LANDMARKS}/", True)
    raise AvatarInvalid(
        f"{source.shown} has no rectangles: neither {', '.join(_PLACES[:2])} nor {LANDMARKS}/0.lms"
        " is there"
    )


def rectangles_of_images(
    found: FaceSource, images: NumberedImages, size: tuple[int, int], source: Source, report: Report
) -> tuple[CropRect, ...]:
    """Return the crop rectangle of each of ``images``, whose first is of ``size`` (width, height),
    in the images' order.

    ``found`` is what ``find_rectangles`` returned for ``source``; of ``source``, ``landmarks_size``
    and ``folder``, which links must not lead out of, are used. What is assumed or unusual is added
    to ``report``. Raises AvatarInvalid where a frame has no rectangle, where the file is wrong, and
    where rectangles do not fit pictures of this size.
    """
    numbers = list(images.paths)
    if found.landmarks:
        there = _landmark_numbers(found, source)
        named = _landmarks_of(numbers, there, found.label, report)
        rects = _from_landmarks(found, named, size, source)
        if more := len(there - set(named)):
            report.note(f"{found.label} has landmarks of frames that are not there: {more}")
        return _cut(rects, numbers, size, found.label, report)
    written = _read(found, source)
    rects = _of_numbers(written, numbers, found.label, report)
    return _checked(rects, numbers, size, found.label)


def rectangles_of_video(
    found: FaceSource, count: int, size: tuple[int, int], label: str, source: Source, report: Report
) -> tuple[CropRect, ...]:
    """Return the crop rectangle of each of the ``count`` frames of the video ``label``, which are
    of ``size`` (width, height).

    ``found`` is what ``find_rectangles`` returned for ``source``; of ``source``, ``landmarks_size``
    and ``folder``, which links must not lead out of, are used. What is assumed or unusual is added
    to ``report``. Raises AvatarInvalid where there are more or fewer rectangles, where the file is
    wrong, and where rectangles do not fit pictures of this size.
    """
    if found.landmarks:
        there = len(_landmark_numbers(found, source))
        if there != count:
            raise AvatarInvalid(
                f"{found.label} holds {there} files for {_video_frames(label, count)}"
            )
        rects = _from_landmarks(found, range(count), size, source)
        return _cut(rects, range(count), size, found.label, report)
    written = _read(found, source)
    if len(written.rects) != count:
        raise AvatarInvalid(
            f"{found.label} has {len(written.rects)} rectangles for {_video_frames(label, count)}"
        )
    numbers = written.frames or tuple(range(count))
    if numbers[-1] - numbers[0] != count - 1:
        lost = sorted(set(range(numbers[0], numbers[-1])) - set(numbers))
        raise AvatarInvalid(f"{found.label} has no rectangle of {frames_shown(lost)}")
    if numbers[0] != 0:
        report.assume(f"frame {numbers[0]} in {found.label} is the first of {label}")
    return _checked(written.rects, range(count), size, found.label)


def _video_frames(label: str, count: int) -> str:
    return f"{label}, which has {count} frames: it is cut off, or they are of another video"


def _read(found: FaceSource, source: Source) -> WrittenRectangles:
    """The rectangles in a JSON file."""
    findings = Findings()
    data = read_file(found.path, RECTANGLES_NAME, MAX_RECTANGLES_BYTES, findings)
    written = None if data is None else parse_written_rectangles(data, findings)
    for problem in findings.errors():
        raise AvatarInvalid(found.label + problem.message.removeprefix(RECTANGLES_NAME))
    if written is None:
        raise AvatarInvalid(f"{found.label} of {source.shown} holds no rectangles")
    return written


def _of_numbers(
    written: WrittenRectangles, numbers: list[int], label: str, report: Report
) -> tuple[CropRect, ...]:
    """One for each of the frames ``numbers``, which may have gaps."""
    first = numbers[0]
    if written.frames is None:
        return _of_list(written.rects, numbers, label, report)
    by_number = dict(zip(written.frames, written.rects, strict=True))
    offset = 0
    if not by_number.keys() >= set(numbers):
        offset = written.frames[0] - first
        # Programs count the files from 0 or 1, and the keys from the other.
        if offset not in (-1, 1) or not by_number.keys() >= {n + offset for n in numbers}:
            lost = [number for number in numbers if number not in by_number]
            raise AvatarInvalid(f"{label} has no rectangle of {frames_shown(lost)}")
        report.assume(f"frame {first + offset} in {label} is the image of number {first}")
    more = len(by_number) - len(numbers)
    if more:
        report.note(f"{label} has {more} rectangles of frames that are not there")
    return tuple(by_number[number + offset] for number in numbers)


def _of_list(
    rects: tuple[CropRect, ...], numbers: list[int], label: str, report: Report
) -> tuple[CropRect, ...]:
    first, last, count = numbers[0], numbers[-1], len(numbers)
    if len(rects) == count:
        if last - first != count - 1:
            report.assume(f"{label} is in the order of the images, whose numbers have gaps")
        return rects
    if len(rects) == last - first + 1:
        report.assume(f"{label} has a rectangle for each missing image, too")
        return tuple(rects[number - first] for number in numbers)
    if len(rects) > count and last - first == count - 1:
        report.note(f"{label} has {len(rects)} rectangles for {count} images; the rest is left out")
        return rects[:count]
    raise AvatarInvalid(f"{label} has {len(rects)} rectangles for {count} images; each needs one")


def _landmark_numbers(found: FaceSource, source: Source) -> set[int]:
    """The numbers of the frames that have a file of landmarks."""
    try:
        names = [each.stem for each in found.path.iterdir() if each.suffix == ".lms"]
    except OSError as error:
        raise AvatarInvalid(f"{found.label} of {source.shown} cannot be read") from error
    return {int(name) for name in names if _NUMBER.fullmatch(name)}


def _landmarks_of(numbers: list[int], there: set[int], label: str, report: Report) -> list[int]:
    """The numbers of the files of landmarks of the images ``numbers``: the same, or, where those
    that are ``there`` are as many and begin one before or behind, each with that difference."""
    for offset in (-1, 1):
        # Programs count images from 0 or 1, and landmarks from the other.
        if {number + offset for number in numbers} == there:
            first = numbers[0]
            report.assume(f"{label}{first + offset}.lms is of the image of number {first}")
            return [number + offset for number in numbers]
    return numbers


def _from_landmarks(
    found: FaceSource, numbers: Iterable[int], size: tuple[int, int], source: Source
) -> tuple[CropRect, ...]:
    rects = []
    width, height = source.landmarks_size or size
    scale = size[0] / width, size[1] / height
    for number in numbers:
        path, label = found.path / f"{number}.lms", f"{found.label}{number}.lms"
        if path.is_symlink():
            followed(path, source.folder, label)
        rects.append(landmark_rectangle(path, label, scale))
    return tuple(rects)


def _cut(
    rects: Sequence[CropRect],
    numbers: Sequence[int],
    size: tuple[int, int],
    label: str,
    report: Report,
) -> tuple[CropRect, ...]:
    """Squares of landmarks, cut off at the lower edge of the picture as the original cuts them."""
    width, height = size
    cut = []
    for number, rect in zip(numbers, rects, strict=True):
        below = rect.y2 - height
        if min(rect.x1, rect.y1) < 0 or rect.x2 > width or below > rect.width * _MOST_CUT:
            right, bottom = max(each.x2 for each in rects), max(each.y2 for each in rects)
            raise AvatarInvalid(
                f"{label}{number}.lms gives the rectangle {rect}, and all reach to"
                f" {right},{bottom}; the frame is {width}x{height}: they are landmarks of pictures"
                " of another size; --landmarks-size says which"
            )
        if below > 0:
            cut.append(number)
    if cut:
        report.note(
            f"{frames_shown(cut)}: the square that {label} gives reaches below the picture and is"
            " cut off there, as SyncTalk_2D does"
        )
    _doubt_size(rects, size, label, report)
    return tuple(CropRect(each.x1, each.y1, each.x2, min(each.y2, height)) for each in rects)


def _doubt_size(
    rects: Sequence[CropRect], size: tuple[int, int], label: str, report: Report
) -> None:
    """A note where all of them lie in the upper left quarter, as those of half the size do."""
    width, height = size
    if all(each.x2 <= width * _SMALL and each.y2 <= height * _SMALL for each in rects):
        report.note(
            f"{label}: all rectangles lie in the upper left quarter of the {width}x{height} frame;"
            " if the face is not there, the landmarks are of smaller pictures, and"
            " --landmarks-size says of which"
        )


def _checked(
    rects: tuple[CropRect, ...], numbers: Sequence[int], size: tuple[int, int], label: str
) -> tuple[CropRect, ...]:
    wrong = misplaced(rects, *size, numbers[0])
    if wrong is not None:
        raise AvatarInvalid(label + wrong.removeprefix(RECTANGLES_NAME))
    return rects
