"""``crop_rects.json``: where the face is in each frame.

Two forms are read: a list of ``[x1, y1, x2, y2]`` in the order of the frames, or an object keyed by
frame ("0", "0000" or "frame_0000") whose numbers run without gaps. x2 and y2 are exclusive.
"""

import json
import re
from typing import Any, Final

from lipwire.avatars.problems import Findings, shown
from lipwire.domain import CropRect

RECTANGLES_NAME: Final = "crop_rects.json"
MAX_RECTANGLES_BYTES: Final = 64 * 1024 * 1024
_MAX_COORDINATE: Final = 1 << 20
_KEY: Final = re.compile(r"(?:frame_)?(\d{1,9})(?:\.(?:png|jpe?g))?", re.IGNORECASE | re.ASCII)


def parse_rectangles(
    data: bytes, findings: Findings, *, first_frame: int | None
) -> tuple[CropRect, ...] | None:
    """The rectangles in frame order; every problem goes into ``findings``, and then the answer is
    None.

    ``first_frame`` is the number in the first frame's file name: keys may start there or at 0. None
    where there are no such names (a video).
    """
    try:
        loaded = json.loads(data, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        findings.error(f"{RECTANGLES_NAME} line {error.lineno} column {error.colno}: {error.msg}")
        return None
    except UnicodeDecodeError as error:
        findings.error(f"{RECTANGLES_NAME} is not UTF-8 at byte {error.start}")
        return None
    except (ValueError, RecursionError):
        findings.error(f"{RECTANGLES_NAME} holds a number too long or a nesting too deep to read")
        return None
    if isinstance(loaded, _Pairs):
        entries = _in_key_order(loaded, findings, first_frame)
        if entries is None:
            return None
    elif isinstance(loaded, list):
        entries = [(f"rectangle {index}", value) for index, value in enumerate(loaded)]
    else:
        findings.error(
            f"{RECTANGLES_NAME} holds {shown(loaded)}; it has to be a list of [x1,y1,x2,y2]"
            " or an object keyed by frame"
        )
        return None
    rects = [_rectangle(label, value, findings) for label, value in entries]
    sound = tuple(rect for rect in rects if rect is not None)
    return sound if len(sound) == len(rects) else None


def outside_frame(rect: CropRect, width: int, height: int) -> bool:
    """Whether any part of ``rect`` lies outside a frame of that size."""
    return rect.x1 < 0 or rect.y1 < 0 or rect.x2 > width or rect.y2 > height


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its keys as written, so that a key given twice is seen."""


def _in_key_order(
    pairs: _Pairs, findings: Findings, first_frame: int | None
) -> list[tuple[str, Any]] | None:
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
    numbers = sorted(by_number)
    if not numbers:
        return []
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
    return [(f"rectangle of frame {number}", by_number[number][1]) for number in numbers]


def _rectangle(label: str, value: object, findings: Findings) -> CropRect | None:
    # type() and not isinstance(): True is an int for Python and no coordinate for anybody.
    if (
        not isinstance(value, list)
        or len(value) != 4
        or any(type(number) is not int for number in value)
    ):
        seen = shown(dict(value) if isinstance(value, _Pairs) else value)
        findings.error(f"{RECTANGLES_NAME}: {label} is {seen}; it has to be four integers")
        return None
    x1, y1, x2, y2 = value
    if any(abs(number) > _MAX_COORDINATE for number in value):
        findings.error(
            f"{RECTANGLES_NAME}: {label} is {shown(value)};"
            f" coordinates are at most {_MAX_COORDINATE}"
        )
        return None
    if x2 <= x1 or y2 <= y1:
        findings.error(
            f"{RECTANGLES_NAME}: {label} is {shown(value)}, which is empty;"
            " x2 has to be above x1 and y2 above y1"
        )
        return None
    return CropRect(x1, y1, x2, y2)
