"""The colours of the skin: its tones, and the tint of every vertex of the face.

Colours are linear RGB in [0, 1], as Blender's shaders take them.
"""

from typing import Final

import numpy as np

from studio.meshes.face import FaceGrid
from studio.meshes.shapes import Array, Triple, smoothstep

SKIN: Final[Triple] = (0.84, 0.43, 0.285)
FLUSHED: Final[Triple] = (0.78, 0.27, 0.20)
"""Cheeks and the tip of the nose."""
LIP: Final[Triple] = (0.62, 0.20, 0.165)
WET_LIP: Final[Triple] = (0.30, 0.05, 0.05)
"""Where the lips meet."""
CAVITY: Final[Triple] = (0.26, 0.045, 0.045)

LIP_GLOSS: Final = 0.60
CAVITY_GLOSS: Final = 0.3


def shaded(color: Triple, share: float) -> Triple:
    """``color`` darkened to ``share`` of itself."""
    return share * color[0], share * color[1], share * color[2]


def face_tint(grid: FaceGrid) -> Array:
    """Colour and gloss (vertices, 4) in [0, 1] in the order of `face.deform`: cavity, then skin."""
    x, y, z = np.abs(grid.neutral[..., 0]), grid.neutral[..., 1], grid.neutral[..., 2]
    cheek = np.exp(-(((x - 0.37) / 0.16) ** 2) - ((y + 0.20) / 0.13) ** 2) * (z > 0)
    nose = np.exp(-((x / 0.13) ** 2) - ((y + 0.16) / 0.13) ** 2) * (z > 0.7)
    flush = np.clip(0.50 * cheek + 0.42 * nose, 0, 1)[..., None]
    color = np.array(SKIN) * (1 - flush) + np.array(FLUSHED) * flush
    lip = (1 - smoothstep(0.86, 1.10, grid.lip))[..., None]
    color = color * (1 - lip) + np.array(LIP) * lip
    wet = np.exp(-((grid.lip / 0.16) ** 2))[..., None]
    color = color * (1 - 0.45 * wet) + np.array(WET_LIP) * 0.45 * wet
    skin = np.concatenate([color, LIP_GLOSS * lip], axis=-1).reshape(-1, 4)

    cavity = np.tile([*CAVITY, CAVITY_GLOSS], (grid.cavity_vertices, 1))
    cavity[:, :3] *= np.linspace(0.25, 1.0, grid.cavity_vertices)[:, None]  # dark in the throat
    return np.concatenate([cavity, skin])
