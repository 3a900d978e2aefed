"""The room behind the character: a bookshelf, a plant and a lamp, far out of focus.

Needs Blender as a module (``bpy``).
"""

import math
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np

from lipwire.domain.newfiles import new_path, storage_errors
from studio.blender.light import ambient, lamp
from studio.blender.materials import material
from studio.blender.objects import mesh_object, point
from studio.blender.stage import render_to, set_up_camera
from studio.meshes.shapes import Triple, superellipsoid
from studio.pictures import HEIGHT_PX, WIDTH_PX

SEED: Final = 3
SHELVES: Final = 5
SHELF_STEP: Final = 1.75
BOOK_TONES: Final[tuple[Triple, ...]] = (
    (0.45, 0.09, 0.05),
    (0.05, 0.16, 0.22),
    (0.50, 0.30, 0.08),
    (0.10, 0.20, 0.12),
    (0.55, 0.48, 0.38),
    (0.20, 0.06, 0.10),
)
BOOK_SHARE: Final = 0.82
"""Part of the places on the shelves that have a book."""
LEAVES: Final = 26
LAMPS: Final[tuple[tuple[Triple, float], ...]] = (
    ((2.4, 2.0, -6.2), 0.42),
    ((-3.0, 3.05, -5.9), 0.16),
    ((-5.4, 1.3, -5.8), 0.13),
)
"""(middle, radius)."""
BULBS: Final = 9


def render_room(path: Path) -> None:
    """Render the room alone (1280x720) to ``path``, whole or not at all.

    Raises `StorageFailed`, `LipwireError` when Blender fails.
    """
    build_room()
    with storage_errors(path), new_path(path) as partial:
        render_to(partial)


def build_room() -> None:
    """The room as a scene ready to render; it replaces whatever Blender had open."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    rng = np.random.default_rng(SEED)
    _build_shelves(rng)
    _build_plant(rng)
    _build_lamps()
    scene = bpy.context.scene
    lamp("area", (-3, 5, 0), (0, 0, -7), size=4.0, power_w=320, color=(1.0, 0.85, 0.68))
    lamp("area", (7, 3, -1), (0, 0, -7), size=4.0, power_w=420, color=(0.55, 0.72, 1.0))
    ambient((0.30, 0.36, 0.48), 0.25)
    depth_of_field = set_up_camera(scene).data.dof
    depth_of_field.use_dof = True
    depth_of_field.focus_distance = 7.6
    depth_of_field.aperture_fstop = 0.16
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.seed = "CPU", 64, 5
    scene.cycles.use_denoising = True
    scene.cycles.max_bounces = 4
    scene.render.resolution_x, scene.render.resolution_y = WIDTH_PX, HEIGHT_PX
    scene.view_settings.view_transform = "AgX"


def _box(name: str, centre: Triple, size: Triple, surface: Any) -> None:
    mesh_object(name, superellipsoid(centre, tuple(s / 2 for s in size), 0.12), surface)


def _build_shelves(rng: np.random.Generator) -> None:
    wall = material("wall", (0.36, 0.33, 0.33), 0.9)
    wood = material("wood", (0.22, 0.11, 0.05), 0.5)
    _box("wall", (0, 0, -7.2), (30, 16, 0.4), wall)
    for shelf in range(SHELVES):
        _box("shelf", (-4.1, -3.6 + SHELF_STEP * shelf, -6.3), (4.6, 0.12, 1.1), wood)
    for x in (-6.4, -1.8):
        _box("post", (x, 0, -6.3), (0.14, 10, 1.1), wood)
    for shelf in range(SHELVES):
        x = -6.2
        while x < -2.1:
            width, height = rng.uniform(0.12, 0.34), rng.uniform(0.8, 1.4)
            if rng.random() < BOOK_SHARE:
                middle = (x + width / 2, -3.53 + SHELF_STEP * shelf + height / 2, -6.2)
                _box("book", middle, (width * 0.94, height, 0.8), _book_cover(rng))
            x += width


def _book_cover(rng: np.random.Generator) -> Any:
    red, green, blue = BOOK_TONES[int(rng.integers(len(BOOK_TONES)))]
    worn = rng.uniform(0.7, 1.2, 3)
    return material("book", (red * worn[0], green * worn[1], blue * worn[2]), 0.6)


def _build_plant(rng: np.random.Generator) -> None:
    pot = material("pot", (0.50, 0.20, 0.10), 0.6)
    green = material("leaf", (0.05, 0.20, 0.06), 0.45)
    _box("pot", (4.3, -2.9, -5.0), (1.1, 1.2, 1.1), pot)
    for number in range(LEAVES):
        angle, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.1)
        shape = superellipsoid((0, 0, 0), (0.20, 0.85, 0.03))
        leaf = mesh_object(f"leaf{number}", shape, green)
        leaf.location = point(
            4.3 + 0.8 * lean * math.cos(angle),
            -1.6 + 1.3 * (1.2 - lean) + rng.uniform(-0.2, 0.3),
            -5.0 + 0.6 * lean * math.sin(angle),
        )
        leaf.rotation_euler = (rng.uniform(-0.5, 0.5), -lean * math.cos(angle), rng.uniform(0, 3))


def _build_lamps() -> None:
    glow = material(
        "glow", (1.0, 0.72, 0.40), 0.5, Emission_Color=(1.0, 0.62, 0.28, 1), Emission_Strength=7.0
    )
    for at, radius in LAMPS:
        mesh_object("lamp", superellipsoid(at, (radius,) * 3), glow)
    for number in range(BULBS):
        at = (0.7 + 0.75 * number, 4.05 - 0.25 * math.sin(number * 0.9), -6.6)
        mesh_object("bulb", superellipsoid(at, (0.06,) * 3), glow)
