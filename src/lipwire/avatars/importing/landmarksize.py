"""Whether landmarks are of pictures of the frames' size.

Files of landmarks say no size. Those of larger pictures mostly lead out of the frames; those of
smaller ones lie inside, on something else than the face, and so does a small face. What tells them
apart is that a face moves: landmarks that move over a part of the picture that stands still are
none of its.
"""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Final

import numpy as np

from lipwire.domain import AvatarInvalid, CropRect, UInt8Array

SAMPLES: Final = 9
"""Frames that are looked at, all over the recording: between some of them a face has moved."""
_STILL_LEVELS: Final = 1.0
"""Mean difference of two frames, of 255, where nothing moves: what H.264 and JPEG leave."""
_MOVING_LEVELS: Final = 3.0
_TIMES: Final = 5.0
"""How much more has to move elsewhere than where the landmarks are."""
_SCALES: Final = (2, 1 / 2, 3 / 2, 2 / 3, 3, 1 / 3, 4 / 3, 3 / 4, 4, 1 / 4)
"""Of the frames to other pictures, the usual ones first."""


def sampled(count: int) -> list[int]:
    """Return the indices, rising, of a few frames spread over ``count`` frames, the first and the
    last among them, for ``check_landmarks_size``: at most 9."""
    number = min(SAMPLES, count)
    return sorted({index * (count - 1) // max(1, number - 1) for index in range(number)})


def check_landmarks_size(
    rects: Sequence[CropRect], frames: Sequence[UInt8Array], label: str
) -> None:
    """Raise AvatarInvalid where the crop rectangles ``rects``, made of landmarks, clearly belong to
    pictures of another size than ``frames``, one (height, width) uint8 in grey for each of them.
    Nothing is raised for fewer than two frames, or frames of several sizes.

    Rectangles belong to another size where they move from frame to frame, the pictures do not
    change inside them, but do change inside the same rectangles scaled to another size. ``label``
    names the landmarks in the message.
    """
    if len(frames) < 2 or len(set(rects)) < 2 or len({each.shape for each in frames}) > 1:
        return
    given = max(_differences(rects, frames, 1.0), default=_MOVING_LEVELS)
    if given > _STILL_LEVELS:
        return
    height, width = frames[0].shape[:2]
    for scale in _SCALES:
        if any(each.x2 * scale > width or each.y2 * scale > height for each in rects):
            continue
        if median(_differences(rects, frames, scale)) >= max(_MOVING_LEVELS, _TIMES * given):
            raise AvatarInvalid(
                f"{label} are at {rects[0]} in the first frame, and in no frame anything moves"
                f" there; they are landmarks of pictures of another size than {width}x{height},"
                f" such as {round(width / scale)}x{round(height / scale)}: --landmarks-size says"
                " which, or the frames' own size if they are right"
            )


def _differences(
    rects: Sequence[CropRect], frames: Sequence[UInt8Array], scale: float
) -> list[float]:
    """Mean differences between each frame and the next, 0 to 255, in the first one's rectangle."""
    found = []
    for rect, (before, behind) in zip(rects, pairwise(frames), strict=False):
        x1, y1, x2, y2 = (int(v * scale) for v in (rect.x1, rect.y1, rect.x2, rect.y2))
        first = before[y1:y2, x1:x2].astype(np.int16)
        if first.size:
            found.append(float(np.abs(first - behind[y1:y2, x1:x2]).mean()))
    return found
