"""In which order the four numbers of rectangles may have been meant.

Programs write rectangles in several ways. The family's are squares: four numbers that make none as
they stand, and do in another order in every frame, were meant so.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import CropRect

_SQUARE: Final = 1.02
"""Longer side to shorter, at most."""
_SMALLEST_PX: Final = 32

_Quads = npt.NDArray[np.int64]  # (rectangles, 4)
_Columns = tuple[_Quads, _Quads, _Quads, _Quads]  # each (rectangles,)

_READINGS: Final[tuple[tuple[str, Callable[..., _Columns]], ...]] = (
    ("x, y, width, height", lambda a, b, c, d: (a, b, a + c, b + d)),
    ("y1, x1, y2, x2", lambda a, b, c, d: (b, a, d, c)),
    ("x1, x2, y1, y2", lambda a, b, c, d: (a, c, b, d)),
    ("y1, y2, x1, x2", lambda a, b, c, d: (c, a, d, b)),
    ("x2, y2, x1, y1", lambda a, b, c, d: (c, d, a, b)),
    ("top, right, bottom, left", lambda a, b, c, d: (d, a, b, c)),
)
"""Orders in which other programs write rectangles, each to x1, y1, x2, y2; the usual ones first."""
_CENTRED: Final[tuple[tuple[str, Callable[..., _Columns]], ...]] = (
    (
        "centre x, centre y, width, height",
        lambda a, b, c, d: (a - c // 2, b - d // 2, a - c // 2 + c, b - d // 2 + d),
    ),
)
"""Fits nearly wherever x, y, width, height does, and is rare."""


def mostly_squares(
    rects: Sequence[CropRect] | Sequence[Sequence[int]], stretch: float = 1.05
) -> bool:
    """Return whether at least half of the rectangles are squares, or nearly: the longer side is at
    most ``stretch`` times the shorter one.

    ``rects`` are one or more; four numbers are read as x1, y1, x2, y2.
    """
    x1, y1, x2, y2 = np.array([_numbers(rect) for rect in rects], np.int64).T
    shorter, longer = np.minimum(x2 - x1, y2 - y1), np.maximum(x2 - x1, y2 - y1)
    squares = int(np.count_nonzero((shorter > 0) & (longer <= stretch * shorter)))
    return 2 * squares >= len(rects)


def other_order(
    rects: Sequence[CropRect] | Sequence[Sequence[int]], size: tuple[int, int] | None = None
) -> str:
    """Return the end of a message about crop rectangles whose four numbers are probably in another
    order than x1, y1, x2, y2; empty where no other order fits.

    ``rects`` are one or more rectangles as they were read; four numbers count as x1, y1, x2, y2. An
    order fits where all of them are then about squares, and inside a frame of ``size`` (width,
    height) where that is known (not None). The text begins with "; " and names the likeliest order,
    or two, with the first rectangle as x1, y1, x2, y2 in that reading.
    """
    quads = np.array([_numbers(rect) for rect in rects], np.int64)
    fitting = _fitting(_READINGS, quads, size) or _fitting(_CENTRED, quads, size)
    if not fitting:
        return ""
    return f"; all would be squares as {' or '.join(fitting[:2])}, and x1, y1, x2, y2 are expected"


def _fitting(
    readings: Iterable[tuple[str, Callable[..., _Columns]]],
    quads: _Quads,
    size: tuple[int, int] | None,
) -> list[str]:
    fitting = []
    for name, reading in readings:
        x1, y1, x2, y2 = reading(*quads.T)
        width, height = x2 - x1, y2 - y1
        if min(width.min(), height.min()) < _SMALLEST_PX or min(x1.min(), y1.min()) < 0:
            continue
        if size is not None and (x2.max() > size[0] or y2.max() > size[1]):
            continue
        if np.max(np.maximum(width, height) / np.minimum(width, height)) <= _SQUARE:
            fitting.append(f"{name} ([{x1[0]},{y1[0]},{x2[0]},{y2[0]}])")
    return fitting


def _numbers(rect: CropRect | Sequence[int]) -> Sequence[int]:
    return (rect.x1, rect.y1, rect.x2, rect.y2) if isinstance(rect, CropRect) else rect
