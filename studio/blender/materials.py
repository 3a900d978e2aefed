"""Surfaces, as Blender's shader nodes. Needs Blender as a module (``bpy``).

Colours are linear RGB in [0, 1].
"""

from typing import Any, Final

import bpy

from studio.meshes.shapes import Triple
from studio.meshes.skin import SKIN, shaded

HAIR: Final[Triple] = (0.115, 0.040, 0.018)
SWEATER: Final[Triple] = (0.035, 0.20, 0.23)

GLOSSY: Final = 0.22
"""Roughness of a tinted surface where its gloss is 1."""

IRIS_RINGS: Final[tuple[tuple[float, Triple], ...]] = (
    (0.000, (0.004, 0.003, 0.003)),  # pupil
    (0.225, (0.004, 0.003, 0.003)),
    (0.255, (0.16, 0.085, 0.02)),  # iris, from amber to green
    (0.360, (0.10, 0.105, 0.035)),
    (0.480, (0.035, 0.085, 0.075)),
    (0.520, (0.008, 0.018, 0.020)),  # limbal ring
    (0.560, (0.45, 0.41, 0.39)),  # sclera
    (0.640, (0.86, 0.83, 0.81)),
    (1.000, (0.82, 0.70, 0.67)),
)
"""(distance from the eye's axis in radii of the eye, colour)."""


def material(name: str, color: Triple, roughness: float, **inputs: Any) -> Any:
    """A Principled BSDF; ``inputs`` are its sockets with underscores for spaces."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    bsdf = _bsdf(made)
    bsdf.inputs["Base Color"].default_value = (*color, 1.0)
    bsdf.inputs["Roughness"].default_value = roughness
    for key, value in inputs.items():
        bsdf.inputs[key.replace("_", " ")].default_value = value
    return made


def _bsdf(made: Any) -> Any:
    return made.node_tree.nodes["Principled BSDF"]


def tinted(name: str, roughness: float, **inputs: Any) -> Any:
    """A material whose colour comes from the mesh's ``tint`` attribute; its alpha is the gloss."""
    made = material(name, (1, 1, 1), roughness, **inputs)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    attribute = nodes.new("ShaderNodeVertexColor")
    attribute.layer_name = "tint"
    links.new(attribute.outputs["Color"], _bsdf(made).inputs["Base Color"])
    gloss = nodes.new("ShaderNodeMapRange")
    gloss.inputs["To Min"].default_value = roughness
    gloss.inputs["To Max"].default_value = GLOSSY
    links.new(attribute.outputs["Alpha"], gloss.inputs["Value"])
    links.new(gloss.outputs["Result"], _bsdf(made).inputs["Roughness"])
    return made


def face_skin() -> Any:
    return tinted(
        "skin",
        0.42,
        Subsurface_Weight=0.22,
        Subsurface_Radius=(0.10, 0.040, 0.022),
        Specular_IOR_Level=0.38,
    )


def lid_skin() -> Any:
    return material(
        "lid",
        shaded(SKIN, 0.94),
        0.45,
        Subsurface_Weight=0.2,
        Subsurface_Radius=(0.08, 0.03, 0.02),
    )


def neck_skin() -> Any:
    return material(
        "neck",
        shaded(SKIN, 0.93),
        0.45,
        Subsurface_Weight=0.22,
        Subsurface_Radius=(0.10, 0.04, 0.02),
    )


def enamel() -> Any:
    return material(
        "enamel",
        (0.88, 0.83, 0.74),
        0.16,
        Subsurface_Weight=0.15,
        Subsurface_Radius=(0.05, 0.04, 0.03),
    )


def gum_flesh() -> Any:
    return material("gum", (0.55, 0.13, 0.12), 0.25)


def tongue_flesh() -> Any:
    return material(
        "tongue",
        (0.58, 0.15, 0.14),
        0.28,
        Subsurface_Weight=0.2,
        Subsurface_Radius=(0.08, 0.02, 0.02),
    )


def lash_hair() -> Any:
    return material("lash", (0.012, 0.007, 0.005), 0.6)


def brow_hair() -> Any:
    return material("brow", shaded(HAIR, 0.8), 0.55)


def head_hair() -> Any:
    return material(
        "hair", HAIR, 0.38, Specular_IOR_Level=0.45, Coat_Weight=0.25, Coat_Roughness=0.25
    )


def eye_surface() -> Any:
    """Pupil, iris, limbal ring and sclera as rings round the eye's own y axis, under a wet coat."""
    made = material("eye", (1, 1, 1), 0.06, Coat_Weight=1.0, Coat_Roughness=0.02)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    coordinates = nodes.new("ShaderNodeTexCoord")
    flat = nodes.new("ShaderNodeVectorMath")
    flat.operation = "MULTIPLY"
    flat.inputs[1].default_value = (1, 0, 1)
    links.new(coordinates.outputs["Object"], flat.inputs[0])
    from_axis = nodes.new("ShaderNodeVectorMath")
    from_axis.operation = "LENGTH"
    links.new(flat.outputs["Vector"], from_axis.inputs[0])
    ramp = nodes.new("ShaderNodeValToRGB")
    elements = ramp.color_ramp.elements
    elements.remove(elements[0])  # a ramp begins with black and white, and is never without one
    for position, color in IRIS_RINGS:
        elements.new(position).color = (*color, 1)
    elements.remove(elements[-1])
    links.new(from_axis.outputs["Value"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], _bsdf(made).inputs["Base Color"])
    return made


def knit() -> Any:
    """Wool with a wavy bump."""
    made = material("sweater", SWEATER, 0.85, Sheen_Weight=0.5)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    coordinates = nodes.new("ShaderNodeTexCoord")
    wave = nodes.new("ShaderNodeTexWave")
    wave.inputs["Scale"].default_value = 14.0
    wave.inputs["Distortion"].default_value = 1.2
    wave.inputs["Detail"].default_value = 2.0
    links.new(coordinates.outputs["Object"], wave.inputs["Vector"])
    bump = nodes.new("ShaderNodeBump")
    bump.inputs["Strength"].default_value = 0.35
    bump.inputs["Distance"].default_value = 0.03
    links.new(wave.outputs["Fac"], bump.inputs["Height"])
    links.new(bump.outputs["Normal"], _bsdf(made).inputs["Normal"])
    return made
