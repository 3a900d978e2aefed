"""Sculpted locks that fall from a side parting, over a cap that closes the gaps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from studio.meshes.head import CENTRE, on_head, outward, surface_radius
from studio.meshes.shapes import Array, Mesh, circle, joined, sheet, tube, unit

SEED: Final = 7
PARTING_X: Final = -0.24
PARTING_Z: Final = np.linspace(0.62, -0.95, 9)
"""Where locks begin along the parting, from the brow to the nape."""
LAYERS: Final = 3

LOCK_STEPS: Final = 30
CHIN_Y: Final = -0.55
"""Below it, locks hang instead of lying on the head."""
NEAR_HEAD: Final = 0.2
"""Farther than this from the head, locks hang as well."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock: a curve from ``start`` to ``end`` that ``middle`` pulls at. Points are (3,)."""

    start: Array
    middle: Array
    end: Array
    width: float
    lift: float  # how far above the head
    flick: float  # how far the tip stands out; negative tucks it in


def hair() -> Mesh:
    return joined([*(_lock_mesh(lock) for lock in _locks()), _cap()])


def _locks() -> Iterator[Lock]:
    rng = np.random.default_rng(SEED)
    for side in (-1, 1):
        for row, z in enumerate(PARTING_Z):
            back = row / (len(PARTING_Z) - 1)  # 0 at the brow, 1 at the nape
            for layer in range(LAYERS):
                yield _lock(rng, side, z, back, layer)


def _lock(rng: np.random.Generator, side: int, z: float, back: float, layer: int) -> Lock:
    jitter = rng.normal(0, 0.02, 3)
    start = np.array([PARTING_X + 0.02 * side, 1.12 - 0.30 * abs(back - 0.45), z * 0.9])
    if back > 0.12:
        fall = -0.70 + 0.05 * rng.normal() - 0.08 * layer if back > 0.22 else -0.50 - 0.09 * layer
        reach = 0.86 + 0.05 * layer
        depth = 0.30 - 1.15 * back
        x = side * reach * math.cos(0.9 * back**1.5 * 1.6)
        end = np.array([x, fall, depth * 0.85])
        middle = np.array([side * 0.98, 0.80 - 0.2 * back, z * 0.75])
    elif side > 0:  # the fringe sweeps across the brow
        end = np.array([0.83, -0.06 - 0.14 * layer, 0.26])
        middle = np.array([0.36, 0.98 + 0.05 * layer, 0.86])
    else:
        end = np.array([-0.83, -0.02 - 0.14 * layer, 0.36])
        middle = np.array([-0.66, 0.86, 0.62])
    return Lock(
        start + jitter * 0.4,
        middle,
        end + jitter,
        width=0.115 - 0.012 * layer + 0.012 * rng.normal(),
        lift=0.085 + 0.03 * layer,
        flick=-0.16 if back > 0.15 else -0.04,
    )


def _lock_mesh(lock: Lock) -> Mesh:
    s = np.linspace(0, 1, LOCK_STEPS)
    path = _laid_on_head(_bezier(lock, s[:, None]))
    out = outward(path)
    path = path + out * (lock.lift * np.sin(np.pi * np.clip(0.12 + 0.88 * s, 0, 1)) ** 0.5)[:, None]
    path += out * (lock.flick * s**4)[:, None]
    path = _smoothed(path)
    radius: Array = (
        lock.width
        * np.clip(s / 0.12, 0.25, 1) ** 0.6
        * (1 - 0.72 * s**4)
        * np.where(s > 0.985, 0.45, 1)
    )
    return tube(path, radius, flat=0.50, normal=outward(path), sides=16)


def _bezier(lock: Lock, t: Array) -> Array:
    return (1 - t) ** 2 * lock.start + 2 * t * (1 - t) * lock.middle + t**2 * lock.end


def _laid_on_head(path: Array) -> Array:
    """``path`` (n, 3) with its points near the head laid on the skin; the others hang."""
    on = on_head(path, 0.0)
    far = np.linalg.norm(path - CENTRE, axis=1) >= np.linalg.norm(on - CENTRE, axis=1) + NEAR_HEAD
    hanging = (path[:, 1] <= CHIN_Y) | far
    return np.where(hanging[:, None], path, on)


def _smoothed(path: Array) -> Array:
    """``path`` (n, 3) without the kink where it leaves the head; its ends stay."""
    kernel = np.hanning(9) / np.hanning(9).sum()
    padded = np.pad(path, ((4, 4), (0, 0)), mode="reflect", reflect_type="odd")
    return np.stack([np.convolve(padded[:, i], kernel, "valid") for i in range(3)], axis=-1)


def _cap() -> Mesh:
    """The cranium, grown a little, without the face."""
    rows, columns = 60, 80
    down = np.linspace(0.0, 1.0, rows)[:, None]  # from the crown to the hairline
    round_head = circle(columns)[None]
    front = np.clip(np.sin(round_head), 0, 1)  # 1 towards the viewer
    polar = down * (np.radians(118) - np.radians(66) * front**1.3)
    direction = np.stack(
        [
            np.sin(polar) * np.cos(round_head),
            np.cos(polar) * np.ones_like(round_head),
            np.sin(polar) * np.sin(round_head),
        ],
        axis=-1,
    )
    ray = unit(np.array([0, 0.1, -0.05]) + direction - CENTRE)
    r = surface_radius(ray) + 0.055 * np.clip((1 - down) / 0.25, 0, 1) ** 0.5 - 0.012
    vertices = (CENTRE + r[..., None] * ray).reshape(-1, 3)
    return Mesh(vertices, sheet(rows, columns, closed=True))
