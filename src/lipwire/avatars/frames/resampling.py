"""Which frame of a video is shown when, where an avatar shows 25 a second.

The rule: the grid begins at the first frame's time, and at each 25th of a second the frame is
shown whose time is nearest; of two that are equally near the earlier one. The last frame is shown
for as long as the frames are on average. A video of 25 frames a second is left as it is by that,
also where its times are rounded.
"""

import math
import shlex
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final, Protocol, TypeVar

from lipwire.domain import FPS, AvatarInvalid

MAX_GAP_S: Final = 60
"""Longer ones are wrong time stamps and not a frame that stands still."""


class Timed(Protocol):
    """A frame that has a time, ``pts``, at which it is shown."""

    @property
    def pts(self) -> int | None:
        """When the frame is shown, in units of the time base; None where it is not known."""


T = TypeVar("T", bound=Timed)


def on_grid(frames: Iterable[T], time_base: Fraction, rate: Fraction, label: str) -> Iterator[T]:
    """Yield for each 25th of a second the one of ``frames`` that is shown then.

    A frame may be yielded several times, or never. ``frames`` are in the order in which they are
    shown; their ``pts`` are in units of ``time_base`` seconds, and time counts from the first
    one's. A frame without a time, or whose time is not after that of the frame before, is assumed
    to be shown 1 / ``rate`` seconds after that frame. Raises AvatarInvalid where times leap by more
    than a minute; ``label`` names the video in the message.
    """
    before: T | None = None
    time_s = Fraction(0)
    count = given = 0
    for frame, time_after_s in _timed(frames, time_base, rate, label):
        if before is not None:
            # The last grid point that is not nearer to this frame than to the one before it.
            last = math.floor((time_s + time_after_s) / 2 * FPS)
            for _ in range(given, last + 1):
                yield before
            given = max(given, last + 1)
        before, time_s = frame, time_after_s
        count += 1
    if before is None:
        return
    mean_s = time_s / (count - 1) if count > 1 else Fraction(1, FPS)
    total = math.floor((time_s + mean_s) * FPS + Fraction(1, 2))
    for _ in range(given, max(total, 1)):
        yield before


def _timed(
    frames: Iterable[T], time_base: Fraction, rate: Fraction, label: str
) -> Iterator[tuple[T, Fraction]]:
    """Each frame with its time in seconds, the first one's 0; the times grow."""
    begin: int | None = None
    time_s: Fraction | None = None
    for number, frame in enumerate(frames):
        if begin is None:
            begin = frame.pts
        told_s = None if frame.pts is None or begin is None else (frame.pts - begin) * time_base
        if time_s is None:
            time_s = Fraction(0)
        elif told_s is None or told_s <= time_s:
            time_s += 1 / rate
        elif told_s - time_s > MAX_GAP_S:
            raise AvatarInvalid(
                f"{label} has {float(told_s - time_s):.0f} seconds between its frames {number - 1}"
                f" and {number}; at most {MAX_GAP_S} are allowed, so convert it: ffmpeg -i"
                f' {shlex.quote(label)} -vf "setpts=N/{FPS}/TB" -r {FPS} -crf 12 converted.mp4'
            )
        else:
            time_s = told_s
        yield frame, time_s
