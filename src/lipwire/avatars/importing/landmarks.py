"""``.lms`` files: the landmarks of a face, from which its crop rectangle follows.

A file has 110 points of one frame, a line each, "x y", whole or with a fraction, as the family's
landmark detector (https://github.com/anliyuan/Ultralight-Digital-Human, ``get_landmark.py``)
writes them.
"""

import stat
from pathlib import Path
from typing import Final

import numpy as np

from lipwire.avatars.locating import reason_of
from lipwire.domain import AvatarInvalid, CropRect
from lipwire.domain.wording import shown

POINTS: Final = 110
_LEFT, _RIGHT, _TOP = 1, 31, 52
"""Points that lie on the left, right and upper side of the rectangle."""
_MAX_BYTES: Final = 64 * 1024
_MAX_COORDINATE: Final = 1 << 20


def landmark_rectangle(path: Path, label: str, scale: tuple[float, float] = (1.0, 1.0)) -> CropRect:
    """Return the crop rectangle that the landmarks in the file ``path`` (.lms, 110 lines "x y")
    give: a square from the x of point 1 to that of point 31, down from the y of point 52, points
    counted from 0; x and y are multiplied by the two factors of ``scale`` and cut to integers.

    ``scale`` is (x, y), the size of the frames divided by that of the pictures in which the
    landmarks were found. The rectangle may reach outside the frame. Raises AvatarInvalid, with
    ``label`` at the beginning of the message, where the file is missing or has not 110 points, and
    where the square is empty.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # reading a pipe would wait for ever
            raise AvatarInvalid(f"{label} is not a file")
        if facts.st_size > _MAX_BYTES:
            raise AvatarInvalid(f"{label} has {facts.st_size} bytes; at most {_MAX_BYTES}")
        lines = path.read_text("utf-8").split("\n")
    except FileNotFoundError:
        raise AvatarInvalid(f"{label} is missing; each frame needs its landmarks") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else "it is no text"
        raise AvatarInvalid(f"{label} cannot be read; {reason}") from error
    rows = [line.split() for line in lines if line.strip()]
    if len(rows) != POINTS:
        raise AvatarInvalid(f"{label} has {len(rows)} points; {POINTS} are needed, a line each")
    left = _coordinate(rows, _LEFT, 0, label, scale)
    right = _coordinate(rows, _RIGHT, 0, label, scale)
    top = _coordinate(rows, _TOP, 1, label, scale)
    if right <= left:
        raise AvatarInvalid(
            f"{label}: point {_LEFT} is at x {left} and point {_RIGHT} at {right}, which has to be"
            " further right"
        )
    return CropRect(left, top, right, top + right - left)


def _coordinate(
    rows: list[list[str]], point: int, axis: int, label: str, scale: tuple[float, float]
) -> int:
    """Cut to an integer after it was rounded to single precision, as the original does."""
    row = rows[point]
    try:
        value = float(np.float32(row[axis])) if len(row) == 2 else float("nan")
    except ValueError:
        value = float("nan")
    if not abs(value) <= _MAX_COORDINATE:
        raise AvatarInvalid(
            f"{label} line {point + 1} is {shown(' '.join(row))}; it has to be x and y, two numbers"
        )
    return int(value * scale[axis])
