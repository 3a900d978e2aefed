"""The skin of the character's head as a function of the mouth controls.

The head's surface is sampled on a grid of confocal ellipses around the mouth: the innermost ellipse
is the slit between the lips, the outermost ones close at the back of the head. Every vertex
therefore knows where it is relative to the mouth, and opening the jaw, spreading, rounding or
pressing the lips are short formulas in these coordinates.

The confocal (elliptic) coordinates of a point (u, v) of the mouth's plane are
``u = c cosh(mu) cos(theta)``, ``v = c sinh(mu) sin(theta)``, c half the width of the slit.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from studio.meshes.head import CENTRE, surface_radius
from studio.meshes.shapes import TINY, Array, Quads, smoothstep

REST: Final = np.zeros(6)
"""The controls of the closed mouth."""

MOUTH_Y: Final = -0.475
SLIT_HALF_WIDTH: Final = 0.205
JAW_HINGE: Final = np.array([0.0, -0.12, -0.10])
"""A point of the hinge, which is an axis along x from ear to ear."""
JAW_DROP_RAD: Final = np.radians(13.0)
"""How far the jaw turns at open = 1; speech goes up to 0.7 of it."""

SEGMENTS: Final = 208
MU_STEPS: Final = np.concatenate(
    [np.linspace(0.0, 0.62, 34, endpoint=False), np.linspace(0.62, 2.95, 80)]
)
"""One ring of vertices each: close together on the lips, wider apart on the skin."""
SURFACE_PER_UNIT_ANGLE: Final = 0.80
"""Distance in the mouth's plane that one radian round `CENTRE` stands for."""
UPPER_VERMILION_MU: Final = 0.27
LOWER_VERMILION_MU: Final = 0.35

CAVITY_RINGS: Final = (
    (0.016, -0.004, 1.00),
    (0.040, 0.000, 1.00),
    (0.075, 0.018, 1.02),
    (0.130, 0.060, 1.06),
    (0.220, 0.120, 1.08),
    (0.340, 0.160, 1.00),
    (0.460, 0.150, 0.80),
    (0.540, 0.070, 0.40),
    (0.560, 0.010, 0.05),
)
"""Rings inside the mouth, from the slit to the throat: (back, away from the slit, spread)."""


@dataclass(frozen=True, slots=True)
class FaceGrid:
    """The neutral face and where each vertex is relative to the mouth.

    Arrays are (rings, segments). Ring 0 is the rim of the lips; segments go round it from the
    corner at +x over the upper lip.
    """

    neutral: Array  # (rings, segments, 3) skin without the cavity
    mu: Array
    theta: Array
    u: Array  # in the mouth's plane: right and up from the middle of the slit
    v: Array
    lip: Array  # 0 at the slit, 1 at the edge of the vermilion, larger on the skin
    faces: Quads  # (quads, 4) over the cavity rings followed by the skin rings
    mouth: Array  # (3,) middle of the slit

    @property
    def cavity_vertices(self) -> int:
        return len(CAVITY_RINGS) * SEGMENTS

    @property
    def sin(self) -> Array:
        return np.asarray(np.sin(self.theta))

    @property
    def upper(self) -> Array:
        """1 on the upper lip and above, 0 below."""
        return np.where(self.sin >= 0, 1.0, 0.0)

    @property
    def distance(self) -> Array:
        """From the middle of the slit, in the mouth's plane."""
        return np.asarray(np.hypot(self.u, self.v))

    @property
    def near(self) -> Array:
        """1 at the mouth, falling to 0 over the cheeks and the chin."""
        return np.asarray(np.exp(-((self.distance / 0.44) ** 2)))


@dataclass(frozen=True, slots=True)
class _Controls:
    """The controls that move skin, each in [0, 1]; `lipwire.training.visemes.CONTROLS` explains."""

    opened: float
    wide: float
    rounded: float
    press: float
    bite: float


def build_grid() -> FaceGrid:
    """Sample the head once; everything that moves is computed from this."""
    theta = np.arange(SEGMENTS) * (2 * np.pi / SEGMENTS)
    mu, theta = np.meshgrid(MU_STEPS, theta, indexing="ij")
    u = SLIT_HALF_WIDTH * np.cosh(mu) * np.cos(theta)
    v = SLIT_HALF_WIDTH * np.sinh(mu) * np.sin(theta)

    forward = np.array([0.0, MOUTH_Y - CENTRE[1], 0.80])
    forward /= np.linalg.norm(forward)
    right = np.array([1.0, 0.0, 0.0])
    up = np.cross(forward, right)
    distance = np.hypot(u, v)
    # Short of pi, where all the outermost ring would be one point behind the head.
    angle = np.minimum(distance / SURFACE_PER_UNIT_ANGLE, 0.985 * np.pi)
    flat = np.maximum(distance, TINY)[..., None]
    direction = np.cos(angle)[..., None] * forward + np.sin(angle)[..., None] * (
        u[..., None] / flat * right + v[..., None] / flat * up
    )
    neutral = CENTRE + surface_radius(direction)[..., None] * direction

    cupids_bow = (
        1.0
        - 0.16 * np.exp(-((u / 0.035) ** 2))
        + 0.10 * np.exp(-(((np.abs(u) - 0.06) / 0.05) ** 2))
    )
    edge = np.where(np.sin(theta) >= 0, UPPER_VERMILION_MU * cupids_bow, LOWER_VERMILION_MU)
    lip = mu / edge

    rings = len(CAVITY_RINGS) + len(MU_STEPS)
    index = np.arange(rings * SEGMENTS).reshape(rings, SEGMENTS)
    a, b = index[:-1], index[1:]
    faces = np.stack([a, b, np.roll(b, -1, 1), np.roll(a, -1, 1)], axis=-1).reshape(-1, 4)
    mouth = neutral[0, SEGMENTS // 4]
    return FaceGrid(neutral, mu, theta, u, v, lip, faces, mouth)


def rotate_jaw(points: Array, angle_rad: Array | float) -> Array:
    """Turn ``points`` (..., 3) about the jaw's hinge; a positive angle opens the mouth."""
    y, z = points[..., 1] - JAW_HINGE[1], points[..., 2] - JAW_HINGE[2]
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    turned = np.stack(
        [points[..., 0], JAW_HINGE[1] + y * c - z * s, JAW_HINGE[2] + y * s + z * c], axis=-1
    )
    return np.asarray(turned)


def moving_window(grid: FaceGrid) -> Array:
    """How much of its motion each vertex (rings, segments) makes: 1 round the mouth, 0 outside.

    The crop rectangle covers where it is not 0, so that no seam can show at the rectangle's edge.
    """
    x, y, z = np.abs(grid.neutral[..., 0]), grid.neutral[..., 1], grid.neutral[..., 2]
    return smoothstep(0.56, 0.40, x) * smoothstep(-0.09, -0.24, y) * (z > -0.4)


def deform(grid: FaceGrid, controls: Array) -> Array:
    """Vertices (all rings x segments, 3), cavity first, for ``controls`` (6,) in [0, 1].

    The controls are open, wide, round, press, bite, tongue; the tongue is another object's. Nothing
    moves outside `moving_window`.
    """
    rest = _skin(grid, _Controls(0.0, 0.0, 0.0, 0.0, 0.0))
    moved = _skin(grid, _Controls(*(float(c) for c in controls[:5])))
    skin = rest + moving_window(grid)[..., None] * (moved - rest)
    return np.concatenate([_cavity(skin[0], grid.sin[0]).reshape(-1, 3), skin.reshape(-1, 3)])


def _skin(grid: FaceGrid, c: _Controls) -> Array:
    """The skin (rings, segments, 3), rim first. The steps depend on their order."""
    p = grid.neutral.copy()
    _shape_lips(grid, c, p)
    _spread_and_round(grid, c, p)
    p = _drop_jaw(grid, c, p)
    mirror = (-np.arange(SEGMENTS)) % SEGMENTS
    gap = p[0, mirror] - p[0]  # (segments, 3) from each rim vertex to its partner's lip
    _seal(grid, c, p, gap)
    _bite(grid, c, p, gap)
    return p


def _shape_lips(grid: FaceGrid, c: _Controls, p: Array) -> None:
    """A soft roll on each lip, sunk at the slit, the corners a little up and back."""
    sin, cos, upper = grid.sin, np.cos(grid.theta), grid.upper > 0
    roll = np.clip(grid.lip, 0.0, 1.6)
    bulge = np.where(roll < 1.0, np.sin(np.pi * np.clip(roll, 0, 1)) ** 0.75, 0.0)
    thin = 1.0 - 0.35 * c.press + 0.15 * c.rounded - 0.12 * c.wide
    height = np.where(upper, 0.030, 0.038) * np.abs(sin) ** 0.6 * thin
    p[..., 2] += bulge * height
    p[..., 2] -= 0.036 * np.exp(-((grid.lip / 0.22) ** 2)) * (1 - 0.3 * np.abs(cos) ** 8)
    p[..., 2] -= np.where(upper, 0.0, 0.030) * np.exp(-(((grid.lip - 1.55) / 0.45) ** 2)) * sin**2
    philtrum = np.exp(-((grid.u / 0.032) ** 2)) * np.exp(-(((grid.v - 0.17) / 0.07) ** 2))
    p[..., 2] -= 0.016 * philtrum
    corner = np.exp(-(((np.abs(grid.u) - SLIT_HALF_WIDTH) / 0.055) ** 2) - (grid.v / 0.05) ** 2)
    p[..., 2] -= 0.020 * corner
    level = np.exp(-((grid.v / 0.2) ** 2))
    p[..., 1] += 0.042 * grid.near * (grid.u / SLIT_HALF_WIDTH) ** 2 * level


def _spread_and_round(grid: FaceGrid, c: _Controls, p: Array) -> None:
    """The corners travel along the cheeks, or inwards and forwards."""
    near, upper = grid.near, grid.upper > 0
    p[..., 0] *= 1.0 + near * (0.20 * c.wide - 0.44 * c.rounded)
    lateral = np.clip(np.abs(grid.u) / SLIT_HALF_WIDTH, 0, 1.6) ** 2
    p[..., 2] -= 0.045 * c.wide * near * lateral
    p[..., 1] += 0.022 * c.wide * near * lateral
    pout = np.exp(-((grid.distance / 0.27) ** 2))
    p[..., 2] += 0.105 * c.rounded * pout
    on_lip = np.exp(-((grid.mu / 0.62) ** 2))
    apart = np.where(upper, 0.018, 0.024)
    p[..., 1] += c.rounded * on_lip * grid.sin * apart * np.clip(grid.lip, 0, 1)
    beside = np.exp(-(((np.abs(grid.u) - 0.44) / 0.13) ** 2))
    above = np.exp(-(((grid.v - 0.20) / 0.16) ** 2))
    p[..., 2] += 0.030 * c.wide * beside * above  # the cheek gathers


def _drop_jaw(grid: FaceGrid, c: _Controls, p: Array) -> Array:
    """The lower lip and the chin turn about the hinge, the corners go half the way."""
    sin = grid.sin
    by_lip = 0.5 * (1.0 - np.tanh(1.45 * sin) / np.tanh(1.45))
    below = smoothstep(0.03, -0.16, p[..., 1] - MOUTH_Y) * smoothstep(-0.45, 0.05, p[..., 2])
    blend = smoothstep(0.45, 1.25, grid.mu)
    weight = by_lip * (1 - blend) + below * blend
    p = rotate_jaw(p, weight * c.opened * JAW_DROP_RAD)
    lift = 0.030 * c.opened * (1 - c.rounded)
    p[..., 1] += lift * grid.near * grid.upper * np.abs(sin)
    hollow = np.exp(-(((np.abs(grid.u) - 0.40) / 0.12) ** 2) - ((grid.v + 0.10) / 0.22) ** 2)
    p[..., 2] -= 0.035 * c.opened * hollow
    return p


def _seal(grid: FaceGrid, c: _Controls, p: Array, gap: Array) -> None:
    """Both lips travel towards each other until they touch, rolled in a little."""
    share = np.where(grid.upper[0] > 0, 0.30, 0.70)[:, None]  # the lower lip goes farther
    falloff = np.exp(-((grid.mu / 0.75) ** 2))[..., None]
    p += c.press * falloff * share * gap
    sin = grid.sin
    p[..., 2] -= 0.014 * c.press * np.exp(-((grid.lip / 0.75) ** 2)) * np.abs(sin)
    p[..., 1] -= 0.014 * c.press * np.exp(-(grid.lip**2)) * sin * np.clip(grid.lip, 0, 1)


def _bite(grid: FaceGrid, c: _Controls, p: Array, gap: Array) -> None:
    """The lower lip goes up and back under the upper teeth, which show."""
    sin = grid.sin
    lower = (1.0 - grid.upper) * np.abs(sin) ** 0.7
    tuck = c.bite * lower * np.exp(-((grid.mu / 0.55) ** 2))
    p[..., 1] += (0.80 * gap[..., 1] + 0.012) * tuck
    p[..., 2] -= 0.050 * tuck
    p[..., 1] += 0.030 * c.bite * grid.upper * np.abs(sin) * np.exp(-((grid.mu / 0.6) ** 2))


def _cavity(rim: Array, sin: Array) -> Array:
    """The inside of the mouth: rings from the throat to just behind the rim (segments, 3)."""
    rings = []
    middle = rim.mean(axis=0)
    for back, away, spread in CAVITY_RINGS:
        ring = middle + (rim - middle) * np.array([spread, spread, 1.0])
        ring[:, 1] += away * sin
        ring[:, 2] += -back - 0.25 * back * (np.abs(rim[:, 0]) / SLIT_HALF_WIDTH) ** 2
        rings.append(ring)
    return np.stack(rings[::-1])
