"""The head without lips: a smooth union of ellipsoids, as a signed distance field.

The operators are those of Inigo Quilez, https://iquilezles.org/articles/distfunctions/. The
distances are approximate (ellipsoids have no closed form), which `surface_radius` allows for.
"""

from typing import Final

import numpy as np

from studio.meshes.shapes import TINY, Array, Triple, unit

CENTRE: Final = np.array([0.0, -0.22, 0.0])
"""Every point of the skin is seen from here: the head is star-shaped round it."""

FARTHEST: Final = 1.8
"""No point of the skin is farther from `CENTRE`."""

MARCH_STEPS: Final = 90
MARCH_SHARE: Final = 0.7
"""Part of the distance that one step goes: the distances are approximate, and may be too long."""


def _ellipsoid(p: Array, centre: Triple, radii: Triple) -> Array:
    q = (p - np.array(centre)) / np.array(radii)
    k0 = np.linalg.norm(q, axis=-1)
    k1 = np.linalg.norm(q / np.array(radii), axis=-1)
    return np.asarray(k0 * (k0 - 1.0) / np.maximum(k1, TINY))


def _capsule(p: Array, a: Triple, b: Triple, radius_a: float, radius_b: float) -> Array:
    pa, ba = p - np.array(a), np.array(b) - np.array(a)
    h = np.clip((pa @ ba) / (ba @ ba), 0.0, 1.0)
    return np.asarray(
        np.linalg.norm(pa - h[..., None] * ba, axis=-1) - (radius_a + (radius_b - radius_a) * h)
    )


def _union(a: Array, b: Array, k: float) -> Array:
    """Both solids, with a fillet of about ``k`` where they meet."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0.0, 1.0)
    return np.asarray(b * (1 - h) + a * h - k * h * (1 - h))


def _carve(a: Array, b: Array, k: float) -> Array:
    """``a`` without ``b``, its edge rounded by about ``k``."""
    return -_union(-a, b, k)


def head_distance(p: Array) -> Array:
    """Signed distance (approximate) of points (..., 3) to the head; it is symmetric in x."""
    q = p.copy()
    q[..., 0] = np.abs(q[..., 0])
    d = _ellipsoid(q, (0, 0.30, -0.12), (0.80, 0.82, 0.92))  # cranium
    d = _union(d, _ellipsoid(q, (0, -0.30, 0.16), (0.575, 0.60, 0.63)), 0.22)  # face and jaw
    d = _union(d, _ellipsoid(q, (0, -0.80, 0.50), (0.15, 0.115, 0.14)), 0.20)  # chin
    d = _union(d, _ellipsoid(q, (0.31, -0.20, 0.52), (0.24, 0.21, 0.22)), 0.16)  # cheek
    d = _union(d, _ellipsoid(q, (0.0, -0.48, 0.64), (0.25, 0.16, 0.17)), 0.14)  # muzzle
    d = _union(d, _ellipsoid(q, (0.25, 0.36, 0.60), (0.30, 0.10, 0.20)), 0.16)  # brow
    d = _carve(d, _ellipsoid(q, (0.325, 0.085, 0.90), (0.22, 0.20, 0.22)), 0.13)  # eye socket
    d = _union(d, _capsule(q, (0, 0.14, 0.72), (0, -0.18, 0.95), 0.050, 0.078), 0.10)  # nose
    d = _union(d, _ellipsoid(q, (0.0, -0.185, 0.965), (0.086, 0.076, 0.08)), 0.05)  # its tip
    d = _union(d, _ellipsoid(q, (0.085, -0.215, 0.875), (0.060, 0.052, 0.075)), 0.045)  # wings
    return _carve(d, _ellipsoid(q, (0.048, -0.275, 0.925), (0.026, 0.02, 0.03)), 0.03)  # nostrils


def surface_radius(directions: Array) -> Array:
    """Distance from `CENTRE` to the skin along unit ``directions`` (..., 3): the outermost hit."""
    r = np.full(directions.shape[:-1], FARTHEST)
    for _ in range(MARCH_STEPS):
        r = np.maximum(r - MARCH_SHARE * head_distance(CENTRE + r[..., None] * directions), 0.05)
    return r


def outward(points: Array) -> Array:
    """Unit vectors (n, 3) from `CENTRE` through ``points`` (n, 3)."""
    return unit(points - CENTRE)


def on_head(points: Array, lift: float) -> Array:
    """``points`` (n, 3) moved along their rays from `CENTRE` onto the skin, plus ``lift``."""
    d = outward(points)
    return np.asarray(CENTRE + (surface_radius(d) + lift)[:, None] * d)
