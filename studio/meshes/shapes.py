"""Surfaces out of formulas: grids, rounded boxes, tubes, and the vectors to place them with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Quads = npt.NDArray[np.int64]
Triple = tuple[float, float, float]

TINY = 1e-9
"""Added to lengths that are divided by."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A surface of quads."""

    vertices: Array  # (n, 3) float64
    faces: Quads  # (m, 4) int64, indices of vertices


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 at ``low``, 1 at ``high`` (either order), smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def unit(vectors: Array) -> Array:
    """``vectors`` (..., 3) at length 1."""
    return np.asarray(vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + TINY))


def turn_y(points: Array, angle_rad: float) -> Array:
    """``points`` (n, 3) turned about the y axis; a positive angle takes z to x."""
    c, s = math.cos(angle_rad), math.sin(angle_rad)
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    return np.stack([x * c + z * s, y, -x * s + z * c], axis=-1)


def circle(count: int) -> Array:
    """``count`` angles once round, in radians, without the second 0."""
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def sheet(rows: int, columns: int, *, closed: bool) -> Quads:
    """Quads of a rows x columns grid of vertices; ``closed`` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(index, -1, axis=1)
    quads = np.stack([index[:-1], right[:-1], right[1:], index[1:]], axis=-1)
    return quads.reshape(-1, 4) if closed else quads[:, :-1].reshape(-1, 4)


def superellipsoid(centre: Sequence[float], radii: Sequence[float], power: float = 1.0) -> Mesh:
    """A rounded box (``power`` < 1) or an ellipsoid (1); its poles are on the y axis."""
    rows, columns = 20, 28
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    longitude = circle(columns)[None]

    def soft(x: Array) -> Array:
        return np.asarray(np.sign(x) * np.abs(x) ** power)

    ball = np.stack(
        [
            soft(np.cos(latitude)) * soft(np.cos(longitude)),
            soft(np.sin(latitude)) * np.ones_like(longitude),
            soft(np.cos(latitude)) * soft(np.sin(longitude)),
        ],
        axis=-1,
    )
    vertices = (ball * np.array(radii) + np.array(centre)).reshape(-1, 3)
    return Mesh(vertices, sheet(rows, columns, closed=True))


def unit_sphere(rows: int = 48, columns: int = 64) -> Mesh:
    """A finely divided sphere of radius 1 round the origin; its poles are on the y axis."""
    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    longitude = circle(columns)[None]
    vertices = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.sin(latitude) * np.ones_like(longitude),
            np.cos(latitude) * np.sin(longitude),
        ],
        axis=-1,
    )
    return Mesh(vertices.reshape(-1, 3), sheet(rows, columns, closed=True))


def tube(
    path: Array, radius: Array, *, flat: float = 1.0, normal: Array | None = None, sides: int = 14
) -> Mesh:
    """A tapered tube along ``path`` (n, 3) with ``radius`` (n,).

    ``flat`` squeezes it along ``normal`` (n, 3), which is +z where it is not given.
    """
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + TINY
    out = normal if normal is not None else np.tile([0.0, 0.0, 1.0], (len(path), 1))
    side = np.cross(tangent, out)
    side /= np.linalg.norm(side, axis=1, keepdims=True) + TINY
    out = np.cross(side, tangent)
    angle = circle(sides)
    ring = (
        np.cos(angle)[None, :, None] * side[:, None]
        + flat * np.sin(angle)[None, :, None] * out[:, None]
    ) * radius[:, None, None]
    return Mesh((path[:, None] + ring).reshape(-1, 3), sheet(len(path), sides, closed=True))


def joined(parts: Sequence[Mesh]) -> Mesh:
    """One mesh of all ``parts``, in order."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
    )
