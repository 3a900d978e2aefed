"""How the head, the eyes and the lids move in the idle loop.

The loop is shown back and forth, so every motion has zero speed at both ends: sums of
``cos(pi k i / (n - 1))`` do. Each motion is a few such waves, (k, height).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

FRAMES: Final = 250
"""Length of the idle loop: ten seconds."""

BLINKS: Final = ((31, 6), (94, 6), (141, 5), (203, 6))
"""(first frame, frames)."""

GLANCES: Final = ((52, 0.06, 0.015), (78, 0.0, 0.0), (150, -0.05, -0.01), (182, 0.0, 0.0))
"""(frame, radians right, radians up): where the eyes go, from straight ahead."""
GLANCE_FRAMES: Final = 3

Waves = tuple[tuple[int, float], ...]
YAW_DEG: Final[Waves] = ((2, 2.1), (5, 1.3), (9, 0.5))
PITCH_DEG: Final[Waves] = ((3, 1.1), (7, 0.7), (12, 0.25))
ROLL_DEG: Final[Waves] = ((2, 0.6), (4, 0.9))
SHIFT_RIGHT: Final[Waves] = ((2, 0.016), (3, 0.012))
SHIFT_UP: Final[Waves] = ((5, 0.008), (8, 0.004))
BREATH: Final[Waves] = ((6, 1.0),)
BROW: Final[Waves] = ((4, 0.5), (11, 0.3))


@dataclass(frozen=True, slots=True)
class Pose:
    """One frame's pose. Angles in radians, distances in head units."""

    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]  # right, up
    breath: float  # -1 out, 1 in
    lid: float  # 0 open, 1 closed
    gaze: tuple[float, float]  # right, up
    brow: float  # up, about -1 to 1


def pose(frame: int, frames: int = FRAMES) -> Pose:
    """The pose of ``frame`` in a loop of ``frames``."""
    phase = frame / max(frames - 1, 1)
    return Pose(
        yaw=np.radians(_sum(YAW_DEG, phase)),
        pitch=np.radians(_sum(PITCH_DEG, phase)),
        roll=np.radians(_sum(ROLL_DEG, phase)),
        shift=(_sum(SHIFT_RIGHT, phase), _sum(SHIFT_UP, phase)),
        breath=_sum(BREATH, phase),
        lid=_lid(frame),
        gaze=_gaze(frame),
        brow=_sum(BROW, phase),
    )


def _sum(waves: Waves, phase: float) -> float:
    return float(sum(height * np.cos(np.pi * k * phase) for k, height in waves))


def _lid(frame: int) -> float:
    for first, length in BLINKS:
        if first <= frame < first + length:
            return float(np.sin(np.pi * (frame - first + 0.5) / length) ** 0.7)
    return 0.0


def _gaze(frame: int) -> tuple[float, float]:
    x, y = 0.0, 0.0
    for first, right, up in GLANCES:
        if frame >= first:
            done = min((frame - first + 1) / GLANCE_FRAMES, 1.0)
            x, y = x + (right - x) * done, y + (up - y) * done
    return x, y
