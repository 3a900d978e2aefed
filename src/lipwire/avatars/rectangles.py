"""``crop_rects.json``: where the face is in each frame.

Two forms are read: a list in the order of the frames, or an object keyed by frame ("0", "0000",
"frame_0000" or an image's path) whose numbers run without gaps. Each rectangle is ``[x1, y1, x2,
y2]``, or an object that has this as ``rect``; x2 and y2 are exclusive.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from lipwire.avatars.checks.problems import Findings, rectangle_of
from lipwire.avatars.checks.readings import mostly_squares, other_order
from lipwire.domain import CropRect
from lipwire.domain.avatarfiles import RECTANGLES_NAME
from lipwire.domain.filekinds import kind_hint
from lipwire.domain.texts import decode_text
from lipwire.domain.wording import shown

MAX_RECTANGLES_BYTES: Final = 64 * 1024 * 1024
_MAX_COORDINATE: Final = 1 << 20
_KEY: Final = re.compile(
    r"(?:[^\x00]*[/\\])?(?:frame[_-]?|img[_-]?|image[_-]?)?(\d{1,9})(?:\.(?:png|jpe?g|bmp|webp))?",
    re.IGNORECASE | re.ASCII,
)
_TOO_LARGE: Final = f"; coordinates are at most {_MAX_COORDINATE}"
_EMPTY: Final = ", which is empty; x2 has to be above x1 and y2 above y1"


@dataclass(frozen=True, slots=True)
class WrittenRectangles:
    """Crop rectangles as a file has them: ``rects``, and the ``frames`` that they are of.

    ``frames`` are the numbers in the file's keys, rising, which may have gaps; None where the file
    is a list, whose rectangles are in the order of the frames.
    """

    rects: tuple[CropRect, ...]
    frames: tuple[int, ...] | None
    """The numbers in the file's keys, rising; None where it is a list."""


def parse_rectangles(
    data: bytes, findings: Findings, *, first_frame: int | None
) -> tuple[CropRect, ...] | None:
    """Return the crop rectangles in ``data``, the bytes of ``crop_rects.json``, one for each source
    frame in their order; None where anything is wrong, which is put into ``findings`` as errors.
    Whether they lie inside the frames is not checked.

    ``first_frame`` is the number in the first frame's file name: the keys of the file may start
    there or at 0. None where frames have no such numbers, as those of a video; keys then start at
    0.
    """
    loaded = _loaded(data, findings)
    if loaded is None:
        return None
    if isinstance(loaded, _Pairs):
        entries = _in_key_order(loaded, findings, first_frame)
    else:
        entries = list(enumerate(loaded, start=first_frame or 0))
    return None if entries is None else _rectangles(entries, findings)


def parse_written_rectangles(data: bytes, findings: Findings) -> WrittenRectangles | None:
    """Return the crop rectangles in ``data``, the bytes of ``crop_rects.json``, with the numbers of
    their frames, which may begin anywhere and have gaps; None where anything is wrong, which is put
    into ``findings`` as errors."""
    loaded = _loaded(data, findings)
    if loaded is None:
        return None
    if isinstance(loaded, _Pairs):
        by_number = _by_number(loaded, findings)
        if by_number is None:
            return None
        entries = [(number, by_number[number][1]) for number in sorted(by_number)]
    else:
        entries = list(enumerate(loaded))
    rects = _rectangles(entries, findings)
    if rects is None:
        return None
    keyed = isinstance(loaded, _Pairs)
    return WrittenRectangles(rects, tuple(number for number, _ in entries) if keyed else None)


def _loaded(data: bytes, findings: Findings) -> "_Pairs | list[Any] | None":
    """What the JSON file holds: an object or a list; None where it is neither, or no JSON."""
    if not data.strip():
        findings.error(f"{RECTANGLES_NAME} is empty; it has to be a list of [x1,y1,x2,y2]")
        return None
    try:
        loaded = json.loads(decode_text(data), object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        findings.error(
            f"{RECTANGLES_NAME} line {error.lineno} column {error.colno}: {error.msg}"
            + kind_hint(data)
        )
        return None
    except UnicodeDecodeError as error:
        findings.error(
            f"{RECTANGLES_NAME} is not {error.encoding.upper()} at byte {error.start};"
            " it has to be UTF-8, or UTF-16 with a byte-order mark"
        )
        return None
    except (ValueError, RecursionError):
        findings.error(f"{RECTANGLES_NAME} holds a number too long or a nesting too deep to read")
        return None
    if not isinstance(loaded, list):  # as _Pairs is
        findings.error(
            f"{RECTANGLES_NAME} holds {shown(loaded)}; it has to be a list of [x1,y1,x2,y2]"
            " or an object keyed by frame"
        )
        return None
    if not loaded:
        findings.error(f"{RECTANGLES_NAME} holds no rectangles; each frame needs one")
        return None
    return loaded


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as written, so that a key given twice is seen."""


def _by_number(pairs: _Pairs, findings: Findings) -> dict[int, tuple[str, Any]] | None:
    """(key, value) of an object by the numbers in its keys."""
    by_number: dict[int, tuple[str, Any]] = {}
    for key, value in pairs:
        match = _KEY.fullmatch(key)
        if match is None:
            findings.error(
                f'{RECTANGLES_NAME}: key {shown(key)} is no frame; allowed are "0" or "frame_0000"'
            )
            return None
        number = int(match[1])
        if number in by_number:
            findings.error(
                f"{RECTANGLES_NAME}: frame {number} is given twice,"
                f" as {shown(by_number[number][0])} and {shown(key)}"
            )
            return None
        by_number[number] = (key, value)
    return by_number


def _in_key_order(
    pairs: _Pairs, findings: Findings, first_frame: int | None
) -> list[tuple[int, Any]] | None:
    by_number = _by_number(pairs, findings)
    if by_number is None:
        return None
    numbers = sorted(by_number)
    starts = {0} if first_frame is None else {0, first_frame}
    if numbers[0] not in starts:
        allowed = " or ".join(str(start) for start in sorted(starts))
        findings.error(
            f"{RECTANGLES_NAME}: the first key is frame {numbers[0]}; it has to be {allowed}"
        )
        return None
    for expected, number in enumerate(numbers, start=numbers[0]):
        if number != expected:
            findings.error(f"{RECTANGLES_NAME}: frame {expected} is missing; keys run without gaps")
            return None
    return [(number, by_number[number][1]) for number in numbers]


def _rectangles(entries: list[tuple[int, Any]], findings: Findings) -> tuple[CropRect, ...] | None:
    """The rectangles of (frame, what was read); one problem a kind, however many frames have it."""
    rects: list[CropRect] = []
    wrong: dict[str, list[tuple[int, Any]]] = {}
    quads: list[list[int]] = []
    for frame, value in entries:
        numbers = _whole_numbers(value)
        if numbers is None:
            wrong.setdefault(_why_not_numbers(value), []).append((frame, value))
        elif any(abs(number) > _MAX_COORDINATE for number in numbers):
            wrong.setdefault(_TOO_LARGE, []).append((frame, numbers))
        else:
            quads.append(numbers)
            x1, y1, x2, y2 = numbers
            if x2 <= x1 or y2 <= y1:
                wrong.setdefault(_EMPTY, []).append((frame, numbers))
            else:
                rects.append(CropRect(x1, y1, x2, y2))
    for reason, found in wrong.items():
        hint = other_order(quads) if reason is _EMPTY and not mostly_squares(quads) else ""
        findings.error(
            f"{RECTANGLES_NAME}: {rectangle_of([frame for frame, _ in found])} is"
            f" {shown(_written(found[0][1]))}{reason}{hint}"
        )
    return None if wrong else tuple(rects)


def _whole_numbers(value: object) -> list[int] | None:
    """The four numbers of a rectangle as it was read, or None."""
    value = _written(value)
    # type() and not isinstance(): True is an int for Python and no coordinate for anybody.
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(type(n) is int or (type(n) is float and n.is_integer()) for n in value)
    ):
        return None
    return [int(number) for number in value]


def _written(value: object) -> object:
    """What stands for the rectangle: an object's ``rect``, where it has one."""
    if not isinstance(value, _Pairs):
        return value
    fields = dict(value)
    return fields.get("rect", fields)


def _why_not_numbers(value: object) -> str:
    value = _written(value)
    if isinstance(value, dict):
        return "; it has to be four integers, or an object that has them as rect"
    if isinstance(value, list) and len(value) == 4:
        if all(isinstance(number, str) for number in value):
            return "; it has to be four integers, without quotes"
        if all(isinstance(number, int | float) and 0 <= number <= 1 for number in value):
            return "; it has to be four integers: pixels, not parts of the frame's sides"
    return "; it has to be four integers"
