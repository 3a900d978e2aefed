"""Lids, lashes and brows. Lids and lashes are round the eye's own middle, brows in head space."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from studio.meshes.head import on_head, outward
from studio.meshes.shapes import Array, Mesh, joined, sheet, tube, unit

EYE_X: Final = 0.300
EYE_Y: Final = 0.085
EYE_Z: Final = 0.585
"""Middle of the eye at the viewer's right; the other one mirrors it."""
EYE_RADIUS: Final = 0.222
EYE_TURN_RAD: Final = math.radians(7)
"""The eyes' sockets look this much outwards."""

LID_RADIUS: Final = EYE_RADIUS + 0.004
LASH_RADIUS: Final = EYE_RADIUS + 0.016
LID_HALF_WIDTH_DEG: Final = 105.0
LID_TILT_DEG: Final = 3.0
"""The outer corner is this much higher than the middle."""


@dataclass(frozen=True, slots=True)
class Lid:
    """A shell round the eye between two elevations."""

    name: str
    free_deg: float  # elevation of the edge at the opening, in the middle
    fixed_deg: float  # elevation of the edge that is hidden in the socket
    droop_deg: float  # how much lower the free edge is in the corners
    thickness: float


UPPER_LID: Final = Lid("upper", 17.0, 100.0, 26.0, 0.013)
LOWER_LID: Final = Lid("lower", -40.0, -100.0, -14.0, 0.006)


def lid(shape: Lid, side: int) -> Mesh:
    """The lid of the eye on ``side`` (-1 or 1), its free edge curved like an almond."""
    rows, columns = 26, 60
    vertices = []
    for t in np.linspace(0, 1, rows):  # from the upper lid's free edge, the lower one's fixed edge
        for a in np.linspace(-LID_HALF_WIDTH_DEG, LID_HALF_WIDTH_DEG, columns):
            across = a / LID_HALF_WIDTH_DEG
            free = shape.free_deg - shape.droop_deg * across**2 + LID_TILT_DEG * side * across
            upper = shape.fixed_deg > shape.free_deg
            start, end = (free, shape.fixed_deg) if upper else (shape.fixed_deg, free)
            from_free = t if upper else 1 - t
            elevation = math.radians(start + (end - start) * t)
            azimuth = math.radians(a)
            radius = LID_RADIUS + shape.thickness * min(1.0, (from_free / 0.10) ** 0.5)
            vertices.append(
                (
                    radius * math.cos(elevation) * math.sin(azimuth),
                    radius * math.sin(elevation),
                    radius * math.cos(elevation) * math.cos(azimuth),
                )
            )
    return Mesh(np.array(vertices), sheet(rows, columns, closed=False))


def lash(side: int) -> Mesh:
    """The upper lid's lashes as one dark line, thicker and flicked up towards the outer corner."""
    steps = 50
    a = np.linspace(-72, 80, steps)
    a = a if side > 0 else -a
    across = a / LID_HALF_WIDTH_DEG
    elevation = np.radians(
        UPPER_LID.free_deg - UPPER_LID.droop_deg * across**2 + LID_TILT_DEG * side * across
    )
    outer = np.linspace(0, 1, steps)
    r = LASH_RADIUS + 0.030 * outer**2
    path = np.stack(
        [
            r * np.cos(elevation) * np.sin(np.radians(a)),
            r * np.sin(elevation) + 0.02 * outer**3,
            r * np.cos(elevation) * np.cos(np.radians(a)),
        ],
        axis=-1,
    )
    radius = 0.0045 + 0.0095 * np.sin(np.pi * np.clip(outer * 0.8 + 0.08, 0, 1))
    return tube(path, radius, normal=unit(path))


def brows() -> Mesh:
    """Both eyebrows, on the skin."""
    return joined([_brow(side) for side in (-1, 1)])


def _brow(side: int) -> Mesh:
    t = np.linspace(0, 1, 24)  # from the nose outwards
    x = 0.125 + 0.31 * t
    y = 0.375 + 0.075 * np.sin(np.pi * np.clip(t * 0.95 + 0.08, 0, 1)) + 0.085 * t**2.5
    path = on_head(np.stack([side * x, y, np.full_like(x, 0.8)], axis=-1), lift=0.008)
    radius: Array = (
        0.034 * (0.35 + 0.65 * np.sin(np.pi * np.clip(0.2 + 0.8 * t, 0, 1)) ** 0.7) * (1 - 0.45 * t)
    )
    return tube(path, radius, flat=0.55, normal=outward(path))
