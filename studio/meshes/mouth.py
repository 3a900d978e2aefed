"""What shows between the lips: two rows of teeth in their gums, and the tongue."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from studio.meshes.shapes import Array, Mesh, joined, superellipsoid, tube, turn_y


@dataclass(frozen=True, slots=True)
class ToothRow:
    """The shape of one jaw's teeth. Lengths in head units, relative to the middle of the slit."""

    name: str
    sign: float  # 1.0: the teeth grow up into the upper jaw; -1.0: down
    edge: float  # y of the biting edge
    back: float  # how far behind the upper teeth the edge is
    gum_back: float
    height_share: float
    widths: tuple[float, ...]  # from the middle outwards


UPPER_TEETH: Final = ToothRow(
    "upper", 1.0, -0.034, 0.0, 0.0, 1.0, (0.052, 0.046, 0.044, 0.040, 0.040)
)
LOWER_TEETH: Final = ToothRow("lower", -1.0, -0.030, 0.085, 0.09, 0.8, (0.034, 0.035, 0.037, 0.036))
TOOTH_HEIGHTS: Final = (0.062, 0.059, 0.061, 0.056, 0.053)
TOOTH_LIFTS: Final = (0.0, 0.003, 0.001, 0.004, 0.006)
"""How far each edge is from the row's, so that they are not all cut along one line."""
TOOTH_GAP: Final = 0.0015

TONGUE_ROOT: Final = np.array([0.0, -0.098, -0.385])
"""Where the tongue's own origin is, from the middle of the slit."""


def teeth(row: ToothRow, mouth: Array) -> Mesh:
    """One row of teeth, in pairs from the middle, for a slit whose middle is ``mouth`` (3,)."""
    parts = []
    place = 0.0
    for number, width in enumerate(row.widths):
        middle = place + width / 2
        place += width + TOOTH_GAP
        height = TOOTH_HEIGHTS[number] * row.height_share
        for side in (-1, 1):
            x = side * middle
            y = mouth[1] + row.edge + row.sign * (height + TOOTH_LIFTS[number])
            z = mouth[2] - 0.100 - 2.3 * x * x - row.back
            tooth = superellipsoid((0, 0, 0), (width / 2 * 1.09, height, 0.024), 0.50)
            along_arch = turn_y(tooth.vertices, -math.atan(-4.2 * x))
            parts.append(Mesh(along_arch + np.array([x, y, z]), tooth.faces))
    return joined(parts)


def gum(row: ToothRow, mouth: Array) -> Mesh:
    """The gum that a row of teeth stands in."""
    x = np.linspace(-0.15, 0.15, 25)
    arch = np.stack(
        [
            x,
            np.full_like(x, mouth[1] + row.edge + row.sign * 0.125),
            mouth[2] - 0.125 - 2.6 * x**2 - row.gum_back,
        ],
        axis=-1,
    )
    return tube(arch, np.full(len(x), 0.034))


def tongue() -> Mesh:
    """The tongue round its own origin, with a groove along its back."""
    body = superellipsoid((0, 0, 0), (0.150, 0.055, 0.24), 0.85)
    x, y = body.vertices[:, 0], body.vertices[:, 1]
    grooved = body.vertices.copy()
    grooved[:, 1] -= 0.020 * np.exp(-((x / 0.030) ** 2)) * (y > 0)
    return Mesh(grooved, body.faces)
