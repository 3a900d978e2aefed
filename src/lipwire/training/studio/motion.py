"""How the head, the eyes and the lids move in the idle loop.

The loop is shown back and forth, so every motion has zero speed at both ends: sums of
``cos(pi k i / (n - 1))`` do.
"""

from dataclasses import dataclass

import numpy as np

BLINKS = ((31, 6), (94, 6), (141, 5), (203, 6))  # first frame, frames
GAZE = ((0, 0.0, 0.0), (52, 0.06, 0.015), (78, 0.0, 0.0), (150, -0.05, -0.01), (182, 0.0, 0.0))


@dataclass(frozen=True, slots=True)
class Pose:
    """One frame's pose. Angles in radians, distances in head units."""

    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]
    breath: float
    lid: float  # 0 open, 1 closed
    gaze: tuple[float, float]
    brow: float


def _waves(phase: float, terms: tuple[tuple[int, float], ...]) -> float:
    return float(sum(a * np.cos(np.pi * k * phase) for k, a in terms))


def pose(frame: int, frames: int) -> Pose:
    """The pose of ``frame`` in a loop of ``frames``."""
    t = frame / max(frames - 1, 1)
    lid = 0.0
    for first, length in BLINKS:
        if first <= frame < first + length:
            lid = float(np.sin(np.pi * (frame - first + 0.5) / length) ** 0.7)
    gaze = (0.0, 0.0)
    for first, right, up in GAZE:
        if frame >= first:
            ease = min((frame - first + 1) / 3.0, 1.0)
            gaze = (gaze[0] + (right - gaze[0]) * ease, gaze[1] + (up - gaze[1]) * ease)
    return Pose(
        yaw=np.radians(_waves(t, ((2, 2.1), (5, 1.3), (9, 0.5)))),
        pitch=np.radians(_waves(t, ((3, 1.1), (7, 0.7), (12, 0.25)))),
        roll=np.radians(_waves(t, ((2, 0.6), (4, 0.9)))),
        shift=(_waves(t, ((2, 0.016), (3, 0.012))), _waves(t, ((5, 0.008), (8, 0.004)))),
        breath=_waves(t, ((6, 1.0),)),
        lid=lid,
        gaze=gaze,
        brow=_waves(t, ((4, 0.5), (11, 0.3))),
    )
