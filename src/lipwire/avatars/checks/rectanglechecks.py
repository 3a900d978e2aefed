"""Whether crop rectangles can be where the face is: inside the frame, nearly squares, not tiny.

These checks need the frame's size.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from lipwire.avatars.checks.problems import rectangle_of
from lipwire.avatars.checks.readings import mostly_squares, other_order
from lipwire.domain import CropRect
from lipwire.domain.avatarfiles import RECTANGLES_NAME

_FAR_FROM_SQUARE: Final = 1.2
"""Longer side to shorter. The network was trained on squares: a face is stretched by so much."""
_NO_SQUARE: Final = 1.05
"""Where another order of the numbers makes squares."""
_MANY_JUMPS: Final = 3
_JUMPING: Final = 0.05
"""Of the frames; a cut in the recording makes one jump."""
_FREE_CORNERS: Final = 3
"""Different ones; two may have x2 = y2 by chance."""
_TINY_PX: Final = 32
"""A tenth of what the network makes."""


def misplaced(
    rects: Sequence[CropRect], width: int, height: int, first_frame: int = 0
) -> str | None:
    """Return what is wrong with ``rects``, the crop rectangles of consecutive frames of ``width`` x
    ``height``, as one line; None where nothing is.

    It is wrong where some lie outside their frames, and where most are no squares and their numbers
    in another order (x, y, width, height, for example) would make all of them squares.
    ``first_frame`` is the number of the first rectangle's frame.
    """
    wrong = [index for index, rect in enumerate(rects) if _outside(rect, width, height)]
    if wrong:
        hint = ""
        if 2 * len(wrong) > len(rects):
            reach = f"{max(rect.x2 for rect in rects)},{max(rect.y2 for rect in rects)}"
            hint = other_order(rects, (width, height)) or f"; the rectangles reach to {reach}"
        return (
            f"{_described(rects, wrong, first_frame)};"
            f" it has to lie inside the frame of {width}x{height}{hint}"
        )
    # One rectangle for all frames may make a square of other numbers by chance, many do not.
    limit = _FAR_FROM_SQUARE if len(set(rects)) == 1 else _NO_SQUARE
    if rects and not mostly_squares(rects, limit) and (hint := other_order(rects, (width, height))):
        stretched = [index for index, rect in enumerate(rects) if _stretch(rect) > limit]
        seen = _described(rects, stretched, first_frame, with_size=True)
        return f"{seen}, which is no square{hint}"
    return None


def doubts(
    rects: Sequence[CropRect], width: int, height: int, first_frame: int = 0
) -> Iterator[str]:
    """Yield a line for each thing that is unusual about ``rects``, the crop rectangles of
    consecutive frames, and may be meant so: some are no squares, are tiny, or jump.

    Frames are ``width`` x ``height``, and the rectangles lie inside; ``first_frame`` is the number
    of the first rectangle's frame.
    """
    stretched = [index for index, rect in enumerate(rects) if _stretch(rect) > _FAR_FROM_SQUARE]
    if stretched:
        yield (
            f"{_described(rects, stretched, first_frame, with_size=True)}; squares are expected,"
            f" sides of at most {_FAR_FROM_SQUARE:g} to 1: the face is stretched"
        )
    if _are_sizes(rects, width, height):
        rect = rects[0]
        yield (
            f"{_described(rects, range(len(rects)), first_frame)}, and in all of them x2 is y2"
            " while x1 and y1 change; they may be x, y, width, height, and x1, y1, x2, y2 are"
            f" expected: [{rect.x1},{rect.y1},{rect.x1 + rect.x2},{rect.y1 + rect.y2}]"
        )
    tiny = [i for i, rect in enumerate(rects) if min(rect.width, rect.height) < _TINY_PX]
    if tiny:
        yield (
            f"{_described(rects, tiny, first_frame, with_size=True)} of a frame of"
            f" {width}x{height}; at least {_TINY_PX}x{_TINY_PX} are expected"
        )
    jumps = [
        index
        for index, (before, rect) in enumerate(pairwise(rects), start=1)
        if _moved_px(before, rect) > min(rect.width, rect.height) / 2
    ]
    if len(jumps) >= _MANY_JUMPS and len(jumps) > len(rects) * _JUMPING:
        moved = _moved_px(rects[jumps[0] - 1], rects[jumps[0]])
        yield (
            f"{_described(rects, jumps, first_frame)}, {moved:.0f} pixels from the one before; less"
            " than half its side is expected: are they of these frames and in their order?"
        )


def _are_sizes(rects: Sequence[CropRect], width: int, height: int) -> bool:
    """Whether the last two numbers are a square's width and height and make nearly squares of
    corners by chance: they are equal in every frame, and the first two go their own ways."""
    return (
        all(rect.x2 == rect.y2 for rect in rects)
        and len({(rect.x1, rect.y1) for rect in rects}) >= _FREE_CORNERS
        and len({rect.x1 - rect.y1 for rect in rects}) > 1
        and all(rect.x1 + rect.x2 <= width and rect.y1 + rect.y2 <= height for rect in rects)
    )


def _moved_px(before: CropRect, rect: CropRect) -> float:
    """Between their middles."""
    return math.hypot(
        (rect.x1 + rect.x2 - before.x1 - before.x2) / 2,
        (rect.y1 + rect.y2 - before.y1 - before.y2) / 2,
    )


def _outside(rect: CropRect, width: int, height: int) -> bool:
    return rect.x1 < 0 or rect.y1 < 0 or rect.x2 > width or rect.y2 > height


def _stretch(rect: CropRect) -> float:
    return max(rect.width, rect.height) / min(rect.width, rect.height)


def _described(
    rects: Sequence[CropRect], indices: Sequence[int], first_frame: int, *, with_size: bool = False
) -> str:
    rect = rects[indices[0]]
    size = f", {rect.width}x{rect.height} pixels" if with_size else ""
    return (
        f"{RECTANGLES_NAME}: {rectangle_of([first_frame + index for index in indices])} is"
        f" {rect}{size}"
    )
