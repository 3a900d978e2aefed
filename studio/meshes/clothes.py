"""The neck and the sweater."""

from typing import Final

import numpy as np

from studio.meshes.shapes import Array, Mesh, circle, sheet, tube

SWEATER_PROFILE: Final = (
    (-1.30, 0.45, 0.43),
    (-1.40, 0.52, 0.48),
    (-1.52, 0.70, 0.52),
    (-1.64, 0.98, 0.57),
    (-1.80, 1.25, 0.62),
    (-2.02, 1.43, 0.66),
    (-2.40, 1.52, 0.70),
    (-3.2, 1.50, 0.74),
    (-4.2, 1.45, 0.74),
)
"""(y, half the width, half the depth) from the collar down."""

COLLAR_ROLLS: Final = ((0.452, -1.17, 0.070), (0.466, -1.285, 0.078), (0.49, -1.40, 0.075))
"""(radius, y, thickness) of each roll of the collar."""


def neck() -> Mesh:
    steps = 12
    path = np.stack(
        [np.zeros(steps), np.linspace(-0.50, -1.75, steps), np.linspace(-0.16, -0.30, steps)],
        axis=-1,
    )
    return tube(path, np.linspace(0.37, 0.43, steps), sides=40)


def sweater() -> Mesh:
    rows, columns = 70, 72
    y, half_width, half_depth = np.array(SWEATER_PROFILE).T
    heights = np.linspace(y[0], y[-1], rows)
    rx = np.interp(-heights, -y, half_width)[:, None]
    rz = np.interp(-heights, -y, half_depth)[:, None]
    angle = circle(columns)
    vertices = np.stack(
        [
            rx * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.9,
            np.broadcast_to(heights[:, None], (rows, columns)),
            -0.28 + rz * np.sin(angle),
        ],
        axis=-1,
    )
    for axis in (0, 2):
        vertices[..., axis] = _smoothed(vertices[..., axis])
    return Mesh(vertices.reshape(-1, 3), sheet(rows, columns, closed=True))


def _smoothed(values: Array) -> Array:
    """``values`` (rows, columns) smoothed along the rows, so that the profile has no kinks."""
    kernel = np.hanning(13) / np.hanning(13).sum()
    padded = np.pad(values, ((6, 6), (0, 0)), mode="edge")
    return np.apply_along_axis(lambda column: np.convolve(column, kernel, "valid"), 0, padded)


def collar() -> list[Mesh]:
    """The rolls of the collar, from the top; each is a little lower in front."""
    steps = 90
    angle = np.linspace(0, 2 * np.pi, steps)
    rolls = []
    for radius, y, thickness in COLLAR_ROLLS:
        path = np.stack(
            [
                radius * np.cos(angle),
                y - 0.05 * np.sin(angle),
                -0.25 + 0.98 * radius * np.sin(angle),
            ],
            axis=-1,
        )
        up = np.tile([0, 1.0, 0], (steps, 1))
        rolls.append(tube(path, np.full(steps, thickness), normal=up, sides=18))
    return rolls
