"""Lamps, and the dim light from everywhere. Needs Blender as a module (``bpy``)."""

import bpy

from studio.blender.objects import look_at, place, point
from studio.meshes.shapes import Triple


def lamp(
    name: str, at: Triple, target: Triple, *, size: float, power_w: float, color: Triple
) -> None:
    """A glowing disk of diameter ``size`` at ``at`` that faces ``target`` (both in head space)."""
    light = bpy.data.lights.new(name, "AREA")
    light.shape, light.size, light.energy, light.color = "DISK", size, power_w, color
    look_at(place(name, light, point(*at)), point(*target))


def ambient(color: Triple, strength: float) -> None:
    """Even light from all directions, and what is seen where nothing is."""
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value = (*color, 1)
    background.inputs["Strength"].default_value = strength


def portrait_light() -> None:
    """Warm key, cool fill, and a rim on either side."""
    face = (0, -0.2, 0.2)
    lamp("key", (-2.6, 2.2, 3.6), face, size=2.0, power_w=300, color=(1.0, 0.92, 0.82))
    lamp("fill", (3.4, 0.4, 3.0), face, size=3.0, power_w=85, color=(0.86, 0.92, 1.0))
    lamp("rim", (2.6, 2.2, -2.6), face, size=1.6, power_w=210, color=(1.0, 0.86, 0.70))
    lamp("rim-left", (-2.8, 1.4, -2.4), face, size=1.4, power_w=90, color=(0.70, 0.85, 1.0))
    ambient((0.52, 0.60, 0.72), 0.32)
