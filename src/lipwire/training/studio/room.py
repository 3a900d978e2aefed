"""The room behind the character: a bookshelf, a plant and a lamp, far out of focus."""

import math
import os
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from lipwire.training.studio.character import material, mesh_object, point, superellipsoid


def _box(
    name: str, centre: tuple[float, float, float], size: tuple[float, float, float], surface: Any
) -> None:
    v, f = superellipsoid(centre, tuple(s / 2 for s in size), 0.12)
    mesh_object(name, v, f, surface)


def render_room(path: Path) -> None:
    """Render the room alone (1280x720) to ``path``."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    rng = np.random.default_rng(3)
    wall = material("wall", (0.36, 0.33, 0.33), 0.9)
    wood = material("wood", (0.22, 0.11, 0.05), 0.5)
    _box("wall", (0, 0, -7.2), (30, 16, 0.4), wall)
    for shelf in range(5):
        _box("shelf", (-4.1, -3.6 + 1.75 * shelf, -6.3), (4.6, 0.12, 1.1), wood)
    for side in (-6.4, -1.8):
        _box("post", (side, 0, -6.3), (0.14, 10, 1.1), wood)
    tones = [
        (0.45, 0.09, 0.05),
        (0.05, 0.16, 0.22),
        (0.50, 0.30, 0.08),
        (0.10, 0.20, 0.12),
        (0.55, 0.48, 0.38),
        (0.20, 0.06, 0.10),
    ]
    for shelf in range(5):
        x = -6.2
        while x < -2.1:
            width, height = rng.uniform(0.12, 0.34), rng.uniform(0.8, 1.4)
            if rng.random() < 0.82:
                tone = tones[int(rng.integers(len(tones)))]
                book = material("book", tuple(c * rng.uniform(0.7, 1.2) for c in tone), 0.6)
                _box(
                    "book",
                    (x + width / 2, -3.53 + 1.75 * shelf + height / 2, -6.2),
                    (width * 0.94, height, 0.8),
                    book,
                )
            x += width
    pot = material("pot", (0.50, 0.20, 0.10), 0.6)
    leaf = material("leaf", (0.05, 0.20, 0.06), 0.45)
    _box("pot", (4.3, -2.9, -5.0), (1.1, 1.2, 1.1), pot)
    for i in range(26):
        angle, lean = rng.uniform(0, 2 * math.pi), rng.uniform(0.2, 1.1)
        v, f = superellipsoid((0, 0, 0), (0.20, 0.85, 0.03))
        made = mesh_object(f"leaf{i}", v, f, leaf)
        made.location = point(
            4.3 + 0.8 * lean * math.cos(angle),
            -1.6 + 1.3 * (1.2 - lean) + rng.uniform(-0.2, 0.3),
            -5.0 + 0.6 * lean * math.sin(angle),
        )
        made.rotation_euler = (rng.uniform(-0.5, 0.5), -lean * math.cos(angle), rng.uniform(0, 3))
    glow = material(
        "glow", (1.0, 0.72, 0.40), 0.5, Emission_Color=(1.0, 0.62, 0.28, 1), Emission_Strength=7.0
    )
    for at, size in (
        ((2.4, 2.0, -6.2), 0.42),
        ((-3.0, 3.05, -5.9), 0.16),
        ((-5.4, 1.3, -5.8), 0.13),
    ):
        v, f = superellipsoid(at, (size, size, size))
        mesh_object("lamp", v, f, glow)
    for i in range(9):
        v, f = superellipsoid(
            (0.7 + 0.75 * i, 4.05 - 0.25 * math.sin(i * 0.9), -6.6), (0.06, 0.06, 0.06)
        )
        mesh_object("bulb", v, f, glow)

    def area(
        at: tuple[float, float, float], size: float, power: float, color: tuple[float, float, float]
    ) -> None:
        light = bpy.data.lights.new("area", "AREA")
        light.shape, light.size, light.energy, light.color = "DISK", size, power, color
        made = bpy.data.objects.new("area", light)
        bpy.context.collection.objects.link(made)
        made.location = point(*at)
        made.rotation_euler = (point(0, 0, -7) - made.location).to_track_quat("-Z", "Y").to_euler()

    area((-3, 5, 0), 4.0, 320, (1.0, 0.85, 0.68))
    area((7, 3, -1), 4.0, 420, (0.55, 0.72, 1.0))
    scene = bpy.context.scene
    world = bpy.data.worlds.new("world")
    scene.world = world
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.30, 0.36, 0.48, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.25
    from lipwire.training.studio.render import HEIGHT, WIDTH, _camera

    scene.camera = _camera()
    scene.camera.data.dof.use_dof = True
    scene.camera.data.dof.focus_distance = 7.6
    scene.camera.data.dof.aperture_fstop = 0.16
    render = scene.render
    render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples, scene.cycles.seed = "CPU", 64, 5
    scene.cycles.use_denoising = True
    scene.cycles.max_bounces = 4
    render.resolution_x, render.resolution_y = WIDTH, HEIGHT
    scene.view_settings.view_transform = "AgX"
    partial = path.with_name(f".{path.stem}-{os.getpid()}.png")
    render.filepath = str(partial)
    bpy.ops.render.render(write_still=True)
    partial.replace(path)
