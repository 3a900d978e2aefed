"""Numpy's meshes as Blender's objects. Needs Blender as a module (``bpy``)."""

from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from studio.meshes.shapes import Array, Mesh


def point(x: float, y: float, z: float) -> Any:
    """A point of head space (x right, y up, z to the viewer) for Blender (y away, z up)."""
    return Vector((x, -z, y))


def to_blender(points: Array) -> Array:
    """`point` for many: (..., 3)."""
    return np.asarray(np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1))


def empty(name: str, parent: Any = None) -> Any:
    """An object without a surface, for others to hang from."""
    return _linked(bpy.data.objects.new(name, None), parent)


def mesh_object(name: str, shape: Mesh, surface: Any, parent: Any = None) -> Any:
    """A smooth-shaded object of ``shape`` in head space, with the material ``surface``."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(to_blender(shape.vertices).tolist(), [], shape.faces.tolist())
    mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    mesh.materials.append(surface)
    mesh.update()
    return _linked(bpy.data.objects.new(name, mesh), parent)


def tint_vertices(thing: Any, tint: Array) -> None:
    """Give every vertex a colour and a gloss (n, 4), which `materials.tinted` shows."""
    layer = thing.data.color_attributes.new("tint", "FLOAT_COLOR", "POINT")
    layer.data.foreach_set("color", tint.astype(np.float32).ravel())


def move_vertices(thing: Any, vertices: Array) -> None:
    """Put the vertices of an object at ``vertices`` (n, 3) of head space."""
    mesh = thing.data
    mesh.vertices.foreach_set("co", to_blender(vertices).astype(np.float32).ravel())
    mesh.update()


def look_at(thing: Any, target: Any) -> None:
    """Turn a camera or a lamp to ``target``, upright."""
    thing.rotation_euler = (target - thing.location).to_track_quat("-Z", "Y").to_euler()


def place(name: str, data: Any, at: Any) -> Any:
    """An object of a camera's or a lamp's ``data`` at ``at``."""
    made = _linked(bpy.data.objects.new(name, data), None)
    made.location = at
    return made


def _linked(made: Any, parent: Any) -> Any:
    bpy.context.collection.objects.link(made)
    made.parent = parent
    return made
