"""The skin of the character's head as a function of the mouth controls.

The head is a smooth union of ellipsoids (a signed distance field). Its surface is sampled on a grid
of confocal ellipses around the mouth: the innermost ellipse is the slit between the lips, the
outermost ones close at the back of the head. Every vertex therefore knows where it is relative to
the mouth, and opening the jaw, spreading, rounding or pressing the lips are short formulas in these
coordinates.

Head space: x to the viewer's right, y up, z towards the viewer; the head is about 2 units high.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

CENTRE = np.array([0.0, -0.22, 0.0])  # every point of the skin is seen from here
MOUTH_Y = -0.475
SLIT_HALF_WIDTH = 0.205
JAW_HINGE = np.array([0.0, -0.12, -0.10])  # (x is free: the hinge is an axis from ear to ear)
JAW_DROP_RAD = np.radians(17.0)  # at open = 1

SEGMENTS = 208
MU_STEPS = np.concatenate([np.linspace(0.0, 0.62, 34, endpoint=False), np.linspace(0.62, 2.95, 80)])
SURFACE_PER_UNIT_ANGLE = 0.80  # planar distance that one radian around CENTRE stands for

# Rings inside the mouth, from the slit to the throat: (back, away from the slit, spread).
CAVITY_RINGS = (
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


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 at ``low``, 1 at ``high`` (either order), smooth between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))


def _ellipsoid(p: Array, centre: tuple[float, ...], radii: tuple[float, ...]) -> Array:
    q = (p - np.array(centre)) / np.array(radii)
    k0 = np.linalg.norm(q, axis=-1)
    k1 = np.linalg.norm(q / np.array(radii), axis=-1)
    return np.asarray(k0 * (k0 - 1.0) / np.maximum(k1, 1e-9))


def _capsule(p: Array, a: tuple[float, ...], b: tuple[float, ...], ra: float, rb: float) -> Array:
    pa, ba = p - np.array(a), np.array(b) - np.array(a)
    h = np.clip((pa @ ba) / (ba @ ba), 0.0, 1.0)
    return np.asarray(np.linalg.norm(pa - h[..., None] * ba, axis=-1) - (ra + (rb - ra) * h))


def _union(a: Array, b: Array, k: float) -> Array:
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0.0, 1.0)
    return np.asarray(b * (1 - h) + a * h - k * h * (1 - h))


def _carve(a: Array, b: Array, k: float) -> Array:
    return -_union(-a, b, k)


def head_distance(p: Array) -> Array:
    """Signed distance (approximate) to the head without lips; p is (..., 3), x is symmetric."""
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
    d = _union(d, _ellipsoid(q, (0.0, -0.185, 0.965), (0.086, 0.076, 0.08)), 0.05)
    d = _union(d, _ellipsoid(q, (0.085, -0.215, 0.875), (0.060, 0.052, 0.075)), 0.045)  # wings
    d = _carve(d, _ellipsoid(q, (0.048, -0.275, 0.925), (0.026, 0.02, 0.03)), 0.03)  # nostrils
    return d


def surface_radius(directions: Array) -> Array:
    """Distance from CENTRE to the skin along unit ``directions`` (..., 3): the outermost hit."""
    r = np.full(directions.shape[:-1], 1.8)
    for _ in range(90):
        r = np.maximum(r - 0.7 * head_distance(CENTRE + r[..., None] * directions), 0.05)
    return r


@dataclass(frozen=True, slots=True)
class FaceGrid:
    """The neutral face and where each vertex is relative to the mouth. Arrays are (rings, segments)."""

    neutral: Array  # (rings, segments, 3) skin without the cavity
    mu: Array
    theta: Array
    u: Array  # planar mouth coordinates: right and up from the middle of the slit
    v: Array
    lip: Array  # 0 at the slit, 1 at the edge of the vermilion, larger on the skin
    faces: npt.NDArray[np.int32]  # (quads, 4) over the cavity rings followed by the skin rings
    mouth: Array  # (3,) middle of the slit

    @property
    def cavity_vertices(self) -> int:
        return len(CAVITY_RINGS) * SEGMENTS


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
    angle = np.minimum(distance / SURFACE_PER_UNIT_ANGLE, 0.985 * np.pi)
    flat = np.maximum(distance, 1e-9)[..., None]
    direction = np.cos(angle)[..., None] * forward + np.sin(angle)[..., None] * (
        u[..., None] / flat * right + v[..., None] / flat * up
    )
    neutral = CENTRE + surface_radius(direction)[..., None] * direction

    upper = np.sin(theta) >= 0
    bow = (
        1.0
        - 0.16 * np.exp(-((u / 0.035) ** 2))
        + 0.10 * np.exp(-(((np.abs(u) - 0.06) / 0.05) ** 2))
    )
    edge = np.where(upper, 0.27 * bow, 0.35)  # in mu
    lip = mu / edge

    rings = len(CAVITY_RINGS) + len(MU_STEPS)
    index = np.arange(rings * SEGMENTS, dtype=np.int32).reshape(rings, SEGMENTS)
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


def deform(grid: FaceGrid, controls: Array) -> Array:
    """Vertices (all rings x segments, 3), cavity first, for ``controls`` (6,) in [0, 1].

    The controls are open, wide, round, press, bite, tongue; the tongue is another object's. Nothing
    moves outside the window that the crop rectangle covers, so that no seam can show there.
    """
    rest = _shape(grid, np.zeros(6))
    moved = _shape(grid, controls)
    x, y = np.abs(grid.neutral[..., 0]), grid.neutral[..., 1]
    window = smoothstep(0.56, 0.40, x) * smoothstep(-0.09, -0.24, y) * (grid.neutral[..., 2] > -0.4)
    skin = rest + window[..., None] * (moved - rest)
    return np.concatenate(
        [_cavity(skin[0], np.sin(grid.theta[0])).reshape(-1, 3), skin.reshape(-1, 3)]
    )


def _shape(grid: FaceGrid, controls: Array) -> Array:
    """The skin (rings, segments, 3), rim first, for ``controls``."""
    opened, wide, rounded, press, bite = (float(c) for c in controls[:5])
    p = grid.neutral.copy()
    sin, cos = np.sin(grid.theta), np.cos(grid.theta)
    distance = np.hypot(grid.u, grid.v)
    near = np.exp(-((distance / 0.44) ** 2))
    on_lip = np.exp(-((grid.mu / 0.62) ** 2))
    upper = sin >= 0

    # Resting lips: a soft roll on each, sunk at the slit, the corners a little up and back.
    roll = np.clip(grid.lip, 0.0, 1.6)
    bulge = np.where(roll < 1.0, np.sin(np.pi * np.clip(roll, 0, 1)) ** 0.75, 0.0)
    thin = 1.0 - 0.35 * press + 0.15 * rounded - 0.12 * wide
    height = np.where(upper, 0.030, 0.038) * np.abs(sin) ** 0.6 * thin
    p[..., 2] += bulge * height
    p[..., 2] -= 0.036 * np.exp(-((grid.lip / 0.22) ** 2)) * (1 - 0.3 * np.abs(cos) ** 8)
    p[..., 2] -= np.where(upper, 0.0, 0.030) * np.exp(-(((grid.lip - 1.55) / 0.45) ** 2)) * sin**2
    philtrum = np.exp(-((grid.u / 0.032) ** 2)) * np.exp(-(((grid.v - 0.17) / 0.07) ** 2))
    p[..., 2] -= 0.016 * philtrum
    corner = np.exp(-(((np.abs(grid.u) - SLIT_HALF_WIDTH) / 0.055) ** 2) - (grid.v / 0.05) ** 2)
    p[..., 2] -= 0.020 * corner
    p[..., 1] += 0.042 * near * (grid.u / SLIT_HALF_WIDTH) ** 2 * np.exp(-((grid.v / 0.2) ** 2))

    # Spread and round: the corners travel along the cheeks, or inwards and forwards.
    p[..., 0] *= 1.0 + near * (0.20 * wide - 0.44 * rounded)
    lateral = np.clip(np.abs(grid.u) / SLIT_HALF_WIDTH, 0, 1.6) ** 2
    p[..., 2] -= 0.045 * wide * near * lateral
    p[..., 1] += 0.022 * wide * near * lateral
    pout = np.exp(-((distance / 0.27) ** 2))
    p[..., 2] += 0.105 * rounded * pout
    p[..., 1] += rounded * on_lip * sin * np.where(upper, 0.018, 0.024) * np.clip(grid.lip, 0, 1)
    p[..., 2] += (
        0.030
        * wide
        * np.exp(-(((np.abs(grid.u) - 0.44) / 0.13) ** 2))
        * np.exp(-(((grid.v - 0.20) / 0.16) ** 2))
    )  # the cheek gathers

    # Jaw: the lower lip and the chin turn about the hinge, the corners go half the way.
    by_lip = 0.5 * (1.0 - np.tanh(1.45 * sin) / np.tanh(1.45))
    below = smoothstep(0.03, -0.16, p[..., 1] - MOUTH_Y) * smoothstep(-0.45, 0.05, p[..., 2])
    blend = smoothstep(0.45, 1.25, grid.mu)
    weight = by_lip * (1 - blend) + below * blend
    p = rotate_jaw(p, weight * opened * JAW_DROP_RAD)
    p[..., 1] += 0.030 * opened * (1 - rounded) * near * upper * np.abs(sin)
    hollow = np.exp(-(((np.abs(grid.u) - 0.40) / 0.12) ** 2) - ((grid.v + 0.10) / 0.22) ** 2)
    p[..., 2] -= 0.035 * opened * hollow

    # Sealing: both lips travel towards each other until they touch, rolled in a little.
    mirror = (-np.arange(SEGMENTS)) % SEGMENTS
    gap = p[0, mirror] - p[0]  # from each rim vertex to its partner on the other lip
    share = np.where(upper[0], 0.30, 0.70)[:, None]
    falloff = np.exp(-((grid.mu / 0.75) ** 2))[..., None]
    p += press * falloff * share * gap
    p[..., 2] -= 0.014 * press * np.exp(-((grid.lip / 0.75) ** 2)) * np.abs(sin)
    p[..., 1] -= 0.014 * press * np.exp(-((grid.lip / 1.0) ** 2)) * sin * np.clip(grid.lip, 0, 1)

    # Lip on teeth: the lower lip goes up and back under the upper teeth, which show.
    lower_only = np.where(upper, 0.0, 1.0) * np.abs(sin) ** 0.7
    tuck = bite * lower_only * np.exp(-((grid.mu / 0.55) ** 2))
    p[..., 1] += (0.80 * gap[..., 1] + 0.012) * tuck
    p[..., 2] -= 0.050 * tuck
    p[..., 1] += (
        0.030 * bite * np.where(upper, 1.0, 0.0) * np.abs(sin) * np.exp(-((grid.mu / 0.6) ** 2))
    )

    return p


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
