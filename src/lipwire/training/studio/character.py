"""The character as a Blender scene: skin, mouth, eyes, hair, clothes, light.

Everything is built from formulas with fixed seeds; there is no face of a real person behind it.
``Character.pose`` is the only thing that moves it. Needs Blender as a module (``bpy``).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import bpy
import numpy as np
from mathutils import Euler, Matrix, Vector

from lipwire.training.studio import face as face_math
from lipwire.training.studio.face import Array
from lipwire.training.studio.motion import Pose

EYE_X, EYE_Y, EYE_Z, EYE_RADIUS = 0.300, 0.085, 0.585, 0.222

SKIN = (0.84, 0.43, 0.285)
LIP = (0.62, 0.20, 0.165)
INSIDE = (0.26, 0.045, 0.045)
HAIR = (0.115, 0.040, 0.018)
SWEATER = (0.035, 0.20, 0.23)


def to_blender(points: Array) -> Array:
    """Head space (x right, y up, z to the viewer) to Blender's (x right, y away, z up)."""
    return np.asarray(np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1))


def point(x: float, y: float, z: float) -> Vector:
    return Vector((x, -z, y))


# --- materials ----------------------------------------------------------------------------------


def material(name: str, color: Sequence[float], roughness: float, **inputs: Any) -> Any:
    """A Principled BSDF; ``inputs`` are its sockets with underscores for spaces."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    bsdf = made.node_tree.nodes["Principled BSDF"]
    bsdf.inputs["Base Color"].default_value = (*color, 1.0)
    bsdf.inputs["Roughness"].default_value = roughness
    for key, value in inputs.items():
        bsdf.inputs[key.replace("_", " ")].default_value = value
    return made


def tinted(name: str, roughness: float, **inputs: Any) -> Any:
    """A material whose colour comes from the mesh's ``tint`` attribute; its alpha is the gloss."""
    made = material(name, (1, 1, 1), roughness, **inputs)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    attribute = nodes.new("ShaderNodeVertexColor")
    attribute.layer_name = "tint"
    bsdf = nodes["Principled BSDF"]
    links.new(attribute.outputs["Color"], bsdf.inputs["Base Color"])
    gloss = nodes.new("ShaderNodeMapRange")
    gloss.inputs["To Min"].default_value = roughness
    gloss.inputs["To Max"].default_value = 0.22
    links.new(attribute.outputs["Alpha"], gloss.inputs["Value"])
    links.new(gloss.outputs["Result"], bsdf.inputs["Roughness"])
    return made


def iris_material() -> Any:
    """Sclera, limbal ring, iris with fibres and pupil, as rings round the eye's own -y axis."""
    made = material("eye", (1, 1, 1), 0.06, Coat_Weight=1.0, Coat_Roughness=0.02)
    nodes, links = made.node_tree.nodes, made.node_tree.links
    coordinates = nodes.new("ShaderNodeTexCoord")
    flat = nodes.new("ShaderNodeVectorMath")
    flat.operation = "MULTIPLY"
    flat.inputs[1].default_value = (1, 0, 1)
    links.new(coordinates.outputs["Object"], flat.inputs[0])
    length = nodes.new("ShaderNodeVectorMath")
    length.operation = "LENGTH"
    links.new(flat.outputs["Vector"], length.inputs[0])
    ramp = nodes.new("ShaderNodeValToRGB")
    stops = [
        (0.000, (0.004, 0.003, 0.003)),
        (0.225, (0.004, 0.003, 0.003)),
        (0.255, (0.16, 0.085, 0.02)),
        (0.360, (0.10, 0.105, 0.035)),
        (0.480, (0.035, 0.085, 0.075)),
        (0.520, (0.008, 0.018, 0.020)),
        (0.560, (0.45, 0.41, 0.39)),
        (0.640, (0.86, 0.83, 0.81)),
        (1.000, (0.82, 0.70, 0.67)),
    ]
    ramp.color_ramp.elements.remove(ramp.color_ramp.elements[0])
    for position, color in stops:
        element = ramp.color_ramp.elements.new(position)
        element.color = (*color, 1)
    ramp.color_ramp.elements.remove(ramp.color_ramp.elements[-1])
    links.new(length.outputs["Value"], ramp.inputs["Fac"])
    links.new(ramp.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    return made


def knit_material() -> Any:
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
    links.new(bump.outputs["Normal"], nodes["Principled BSDF"].inputs["Normal"])
    return made


# --- meshes -------------------------------------------------------------------------------------


def mesh_object(name: str, vertices: Array, faces: Any, surface: Any, parent: Any = None) -> Any:
    """A smooth-shaded object out of head-space ``vertices`` (n, 3)."""
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(to_blender(vertices).tolist(), [], np.asarray(faces).tolist())
    mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
    mesh.materials.append(surface)
    mesh.update()
    made = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(made)
    made.parent = parent
    return made


def move_vertices(thing: Any, vertices: Array) -> None:
    mesh = thing.data
    mesh.vertices.foreach_set("co", to_blender(vertices).astype(np.float32).ravel())
    mesh.update()


def sheet(rows: int, columns: int, *, closed: bool) -> Any:
    """Quads of a rows x columns grid of vertices; ``closed`` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(index, -1, axis=1)
    quads = np.stack([index[:-1], right[:-1], right[1:], index[1:]], axis=-1)
    return quads.reshape(-1, 4) if closed else quads[:, :-1].reshape(-1, 4)


def superellipsoid(
    centre: Sequence[float], radii: Sequence[float], power: float = 1.0
) -> tuple[Array, Any]:
    """A rounded box (``power`` < 1) or ellipsoid (1) as (vertices, faces)."""
    rows, columns = 20, 28
    a = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    b = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]

    def soft(x: Array) -> Array:
        return np.asarray(np.sign(x) * np.abs(x) ** power)

    unit = np.stack(
        [
            soft(np.cos(a)) * soft(np.cos(b)),
            soft(np.sin(a)) * np.ones_like(b),
            soft(np.cos(a)) * soft(np.sin(b)),
        ],
        axis=-1,
    )
    vertices = (unit * np.array(radii) + np.array(centre)).reshape(-1, 3)
    return vertices, sheet(rows, columns, closed=True)


def tube(
    path: Array, radius: Array, *, flat: float = 1.0, normal: Array | None = None, sides: int = 14
) -> tuple[Array, Any]:
    """A tapered tube along ``path`` (n, 3) with ``radius`` (n,); ``flat`` squeezes it along ``normal``."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-9
    out = normal if normal is not None else np.tile([0.0, 0.0, 1.0], (len(path), 1))
    side = np.cross(tangent, out)
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    out = np.cross(side, tangent)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    ring = (
        np.cos(angle)[None, :, None] * side[:, None]
        + flat * np.sin(angle)[None, :, None] * out[:, None]
    ) * radius[:, None, None]
    return (path[:, None] + ring).reshape(-1, 3), sheet(len(path), sides, closed=True)


def joined(parts: Sequence[tuple[Array, Any]]) -> tuple[Array, Any]:
    vertices, faces, offset = [], [], 0
    for v, f in parts:
        vertices.append(v)
        faces.append(np.asarray(f) + offset)
        offset += len(v)
    return np.concatenate(vertices), np.concatenate(faces)


# --- the character ------------------------------------------------------------------------------


class Character:
    """The built scene. ``pose`` moves it; ``mouth_position`` says where its mouth is in the world."""

    def __init__(self) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.grid = face_math.build_grid()
        self.head = _empty("head", None)
        self.jaw = _empty("jaw", self.head)
        self._skin = tinted(
            "skin",
            0.42,
            Subsurface_Weight=0.22,
            Subsurface_Radius=(0.10, 0.040, 0.022),
            Specular_IOR_Level=0.38,
        )
        self.face = self._build_face()
        self._build_teeth()
        self.tongue = self._build_tongue()
        self.eyes, self.lids = self._build_eyes()
        self.brows = self._build_brows()
        self._build_hair()
        self.body = self._build_body()
        _build_light()

    def pose(self, pose: Pose, controls: Array) -> None:
        """Set the frame's pose and the six mouth controls (open, wide, round, press, bite, tongue)."""
        self.head.rotation_euler = Euler((pose.pitch, pose.roll, pose.yaw), "ZXY")
        self.head.location = point(pose.shift[0], pose.shift[1], 0.0)
        self.body.location = point(pose.shift[0] * 0.3, 0.006 * pose.breath, 0.0)
        vertices = face_math.deform(self.grid, controls)
        move_vertices(self.face, vertices)
        opened, rounded, bite, tongue = (float(controls[i]) for i in (0, 2, 4, 5))
        angle = opened * (1 - 0.25 * bite) * face_math.JAW_DROP_RAD
        hinge = Matrix.Translation(point(*face_math.JAW_HINGE))
        self.jaw.matrix_local = hinge @ Matrix.Rotation(angle, 4, "X") @ hinge.inverted()
        self.tongue.location = point(
            0, 0.085 * tongue * (0.5 + 0.5 * opened), 0.045 * tongue - 0.04 * rounded
        )
        self.tongue.rotation_euler = Euler((-math.radians(16) * tongue, 0, 0))
        for eye in self.eyes:
            eye.rotation_euler = Euler(
                (pose.gaze[1] - 0.4 * pose.pitch, 0, pose.gaze[0] - 0.6 * pose.yaw)
            )
        for upper, lower in self.lids:
            upper.rotation_euler = Euler((math.radians(-13 + 53 * pose.lid), 0, 0))
            lower.rotation_euler = Euler((math.radians(-12 * pose.lid), 0, 0))
        self.brows.location = point(0, 0.012 * pose.brow - 0.02 * pose.lid, 0)

    def mouth_position(self) -> Vector:
        """World position of the point the crop rectangle is centred on."""
        return self.head.matrix_world @ point(0.0, face_math.MOUTH_Y - 0.165, 0.62)

    def _build_face(self) -> Any:
        grid = self.grid
        vertices = face_math.deform(grid, np.zeros(6))
        made = mesh_object("face", vertices, grid.faces, self._skin, self.head)
        lip = 1 - face_math.smoothstep(0.86, 1.10, grid.lip)
        p = grid.neutral
        x, y = np.abs(p[..., 0]), p[..., 1]
        blush = np.exp(-(((x - 0.37) / 0.16) ** 2) - ((y + 0.20) / 0.13) ** 2) * (p[..., 2] > 0)
        nose = np.exp(-((x / 0.13) ** 2) - ((y + 0.16) / 0.13) ** 2) * (p[..., 2] > 0.7)
        redness = np.clip(0.50 * blush + 0.42 * nose, 0, 1)[..., None]
        color = np.array(SKIN) * (1 - redness) + np.array((0.78, 0.27, 0.20)) * redness
        color = color * (1 - lip[..., None]) + np.array(LIP) * lip[..., None]
        inner = np.exp(-((grid.lip / 0.16) ** 2))[..., None]
        color = color * (1 - 0.45 * inner) + np.array((0.30, 0.05, 0.05)) * 0.45 * inner
        gloss = (0.60 * lip)[..., None]
        skin = np.concatenate([color, gloss], axis=-1).reshape(-1, 4)
        cavity = np.tile([*INSIDE, 0.3], (grid.cavity_vertices, 1))
        depth = np.linspace(0.25, 1.0, grid.cavity_vertices)[:, None]
        cavity[:, :3] *= depth
        layer = made.data.color_attributes.new("tint", "FLOAT_COLOR", "POINT")
        layer.data.foreach_set("color", np.concatenate([cavity, skin]).astype(np.float32).ravel())
        return made

    def _build_teeth(self) -> None:
        enamel = material(
            "enamel",
            (0.88, 0.83, 0.74),
            0.16,
            Subsurface_Weight=0.15,
            Subsurface_Radius=(0.05, 0.04, 0.03),
        )
        gum = material("gum", (0.55, 0.13, 0.12), 0.25)
        mouth = self.grid.mouth
        for name, parent, sign, edge, widths in (
            ("upper", self.head, 1.0, -0.034, (0.052, 0.046, 0.044, 0.040, 0.040)),
            ("lower", self.jaw, -1.0, -0.030, (0.034, 0.035, 0.037, 0.036)),
        ):
            teeth, gums = [], []
            place = 0.0
            for number, width in enumerate(widths):
                middle = place + width / 2
                place += width + 0.0015
                height = (0.062, 0.059, 0.061, 0.056, 0.053)[number] * (1.0 if sign > 0 else 0.8)
                for side in (-1, 1):
                    x = side * middle
                    z = mouth[2] - 0.100 - 2.3 * x * x - (0.085 if sign < 0 else 0.0)
                    lift = (0.0, 0.003, 0.001, 0.004, 0.006)[number]
                    y = mouth[1] + edge + sign * (height + lift)
                    v, f = superellipsoid((0, 0, 0), (width / 2 * 1.09, height, 0.024), 0.50)
                    turn = math.atan(-4.2 * x)
                    v = _turn_y(v, -turn)
                    teeth.append((v + np.array([x, y, z]), f))
            span = np.linspace(-0.15, 0.15, 25)
            arch = np.stack(
                [
                    span,
                    np.full_like(span, mouth[1] + edge + sign * 0.125),
                    mouth[2] - 0.125 - 2.6 * span**2 - (0.09 if sign < 0 else 0),
                ],
                axis=-1,
            )
            gums.append(tube(arch, np.full(len(span), 0.034)))
            mesh_object(f"teeth-{name}", *joined(teeth), enamel, parent)
            mesh_object(f"gum-{name}", *joined(gums), gum, parent)

    def _build_tongue(self) -> Any:
        flesh = material(
            "tongue",
            (0.58, 0.15, 0.14),
            0.28,
            Subsurface_Weight=0.2,
            Subsurface_Radius=(0.08, 0.02, 0.02),
        )
        mouth = self.grid.mouth
        v, f = superellipsoid((0, 0, 0), (0.150, 0.055, 0.24), 0.85)
        v[:, 1] -= 0.020 * np.exp(-((v[:, 0] / 0.030) ** 2)) * (v[:, 1] > 0)
        holder = _empty("tongue-root", self.jaw)
        holder.location = point(0, mouth[1] - 0.098, mouth[2] - 0.385)
        made = mesh_object("tongue", v, f, flesh, holder)
        return made

    def _build_eyes(self) -> tuple[list[Any], list[tuple[Any, Any]]]:
        surface = iris_material()
        lid_skin = material(
            "lid",
            tuple(0.94 * c for c in SKIN),
            0.45,
            Subsurface_Weight=0.2,
            Subsurface_Radius=(0.08, 0.03, 0.02),
        )
        lash = material("lash", (0.012, 0.007, 0.005), 0.6)
        eyes, lids = [], []
        for side in (-1, 1):
            socket = _empty("socket", self.head)
            socket.location = point(side * EYE_X, EYE_Y, EYE_Z)
            socket.rotation_euler = Euler((0, 0, side * math.radians(7)))
            v, f = superellipsoid((0, 0, 0), (1, 1, 1))
            eye = _sphere("eye", EYE_RADIUS, surface, socket)
            eyes.append(eye)
            pair = []
            for name, low, high, thickness in (
                ("upper", 17.0, 100.0, 0.013),
                ("lower", -100.0, -40.0, 0.006),
            ):
                holder = _empty(f"lid-{name}", socket)
                mesh_object(
                    f"lid-{name}",
                    *_lid(low, high, side, EYE_RADIUS + 0.004, thickness, name == "upper"),
                    lid_skin,
                    holder,
                )
                if name == "upper":
                    mesh_object("lash", *_lash(low, side, EYE_RADIUS + 0.016), lash, holder)
                pair.append(holder)
            lids.append((pair[0], pair[1]))
        return eyes, lids

    def _build_brows(self) -> Any:
        hair = material("brow", tuple(0.8 * c for c in HAIR), 0.55)
        parts = []
        for side in (-1, 1):
            t = np.linspace(0, 1, 24)
            x = 0.125 + 0.31 * t
            y = 0.375 + 0.075 * np.sin(np.pi * np.clip(t * 0.95 + 0.08, 0, 1)) + 0.085 * t**2.5
            path = _on_head(np.stack([side * x, y, np.full_like(x, 0.8)], axis=-1), 0.008)
            radius = (
                0.034
                * (0.35 + 0.65 * np.sin(np.pi * np.clip(0.2 + 0.8 * t, 0, 1)) ** 0.7)
                * (1 - 0.45 * t)
            )
            parts.append(tube(path, radius, flat=0.55, normal=_outward(path)))
        return mesh_object("brows", *joined(parts), hair, self.head)

    def _build_hair(self) -> None:
        surface = material(
            "hair", HAIR, 0.38, Specular_IOR_Level=0.45, Coat_Weight=0.25, Coat_Roughness=0.25
        )
        parts = list(_hair_locks())
        mesh_object("hair", *joined(parts), surface, self.head)

    def _build_body(self) -> Any:
        body = _empty("body", None)
        neck_skin = material(
            "neck",
            tuple(0.93 * c for c in SKIN),
            0.45,
            Subsurface_Weight=0.22,
            Subsurface_Radius=(0.10, 0.04, 0.02),
        )
        neck = np.stack(
            [np.zeros(12), np.linspace(-0.50, -1.75, 12), np.linspace(-0.16, -0.30, 12)], axis=-1
        )
        mesh_object(
            "neck",
            *tube(
                neck, np.linspace(0.37, 0.43, 12), sides=40, normal=np.tile([0, 0, 1.0], (12, 1))
            ),
            neck_skin,
            body,
        )
        knit = knit_material()
        rows = []
        profile = (
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
        heights = np.array([r[0] for r in profile])
        samples = np.linspace(heights[0], heights[-1], 70)
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        for y in samples:
            rx = np.interp(-y, -heights, [r[1] for r in profile])
            rz = np.interp(-y, -heights, [r[2] for r in profile])
            rows.append(
                np.stack(
                    [
                        rx * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.9,
                        np.full_like(angle, y),
                        -0.28 + rz * np.sin(angle),
                    ],
                    axis=-1,
                )
            )
        smooth = np.stack(rows)
        kernel = np.hanning(13) / np.hanning(13).sum()
        for axis in (0, 2):
            padded = np.pad(smooth[..., axis], ((6, 6), (0, 0)), mode="edge")
            smooth[..., axis] = np.apply_along_axis(
                lambda c: np.convolve(c, kernel, "valid"), 0, padded
            )
        mesh_object("sweater", smooth.reshape(-1, 3), sheet(70, 72, closed=True), knit, body)
        for radius, height, size in (
            (0.452, -1.17, 0.070),
            (0.466, -1.285, 0.078),
            (0.49, -1.40, 0.075),
        ):
            ring = np.linspace(0, 2 * np.pi, 90)
            path = np.stack(
                [
                    radius * np.cos(ring),
                    height + 0.06 * np.cos(ring * 1.0 + np.pi / 2),
                    -0.25 + 0.98 * radius * np.sin(ring),
                ],
                axis=-1,
            )
            path[:, 1] = height - 0.05 * np.sin(ring)
            mesh_object(
                "collar",
                *tube(path, np.full(90, size), normal=np.tile([0, 1.0, 0], (90, 1)), sides=18),
                knit,
                body,
            )
        return body


def _turn_y(v: Array, angle: float) -> Array:
    c, s = math.cos(angle), math.sin(angle)
    return np.stack([v[:, 0] * c + v[:, 2] * s, v[:, 1], -v[:, 0] * s + v[:, 2] * c], axis=-1)


def _empty(name: str, parent: Any) -> Any:
    made = bpy.data.objects.new(name, None)
    bpy.context.collection.objects.link(made)
    made.parent = parent
    return made


def _sphere(name: str, radius: float, surface: Any, parent: Any) -> Any:
    """A unit sphere scaled to ``radius``, so that the material's object space is the unit sphere's."""
    rows, columns = 48, 64
    a = np.linspace(-np.pi / 2, np.pi / 2, rows)[:, None]
    b = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    v = np.stack(
        [np.cos(a) * np.cos(b), np.sin(a) * np.ones_like(b), np.cos(a) * np.sin(b)], axis=-1
    )
    made = mesh_object(name, v.reshape(-1, 3), sheet(rows, columns, closed=True), surface, parent)
    made.scale = (radius, radius, radius)
    return made


def _lid(
    low: float, high: float, side: int, radius: float, thickness: float, upper: bool
) -> tuple[Array, Any]:
    """A shell round the eye between two elevations (degrees), its free edge curved like an almond."""
    across = np.linspace(-105, 105, 60)
    out = []
    for t in np.linspace(0, 1, 26):
        ring = []
        for a in across:
            bend = (a / 105.0) ** 2
            tilt = 3.0 * side * (a / 105.0)
            free = (low if upper else high) - (26.0 * bend if upper else -14.0 * bend) + tilt
            fixed = high if upper else low
            edge = free if upper else fixed
            far = fixed if upper else free
            e = math.radians(edge + (far - edge) * t)
            to_edge = t if upper else 1 - t
            r = radius + thickness * min(1.0, (to_edge / 0.10) ** 0.5)
            ring.append(
                (
                    r * math.cos(e) * math.sin(math.radians(a)),
                    r * math.sin(e),
                    r * math.cos(e) * math.cos(math.radians(a)),
                )
            )
        out.append(ring)
    grid = np.array(out)
    return grid.reshape(-1, 3), sheet(26, 60, closed=False)


def _lash(low: float, side: int, radius: float) -> tuple[Array, Any]:
    a = np.linspace(-72, 80, 50) * 1.0
    a = a if side > 0 else -a
    bend = (a / 105.0) ** 2
    e = np.radians(low - 26.0 * bend + 3.0 * side * (a / 105.0))
    outer = np.linspace(0, 1, 50)
    r = radius + 0.030 * outer**2
    path = np.stack(
        [
            r * np.cos(e) * np.sin(np.radians(a)),
            r * np.sin(e) + 0.02 * outer**3,
            r * np.cos(e) * np.cos(np.radians(a)),
        ],
        axis=-1,
    )
    return tube(
        path,
        0.0045 + 0.0095 * np.sin(np.pi * np.clip(outer * 0.8 + 0.08, 0, 1)),
        normal=_unit(path),
    )


def _unit(v: Array) -> Array:
    return np.asarray(v / (np.linalg.norm(v, axis=-1, keepdims=True) + 1e-9))


def _outward(path: Array) -> Array:
    return _unit(path - face_math.CENTRE)


def _on_head(points: Array, lift: float) -> Array:
    """``points`` moved along their rays from the head's centre onto the skin, plus ``lift``."""
    d = _outward(points)
    return np.asarray(face_math.CENTRE + (face_math.surface_radius(d) + lift)[:, None] * d)


def _hair_locks() -> list[tuple[Array, Any]]:
    """Sculpted locks that fall from a side parting, over a cap that closes the gaps."""
    rng = np.random.default_rng(7)
    parts: list[tuple[Array, Any]] = []
    part_x = -0.24

    def lock(
        start: Array, end: Array, middle: Array, width: float, lift: float, flick: float
    ) -> None:
        t = np.linspace(0, 1, 30)[:, None]
        raw = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        s = t[:, 0]
        path = raw.copy()
        above = raw[:, 1] > -0.55
        on = _on_head(raw, 0.0)
        inside = (
            np.linalg.norm(raw - face_math.CENTRE, axis=1)
            < np.linalg.norm(on - face_math.CENTRE, axis=1) + 0.2
        )
        path = np.where((above & inside)[:, None], on, raw)
        out = _outward(path)
        path = path + out * (lift * np.sin(np.pi * np.clip(0.12 + 0.88 * s, 0, 1)) ** 0.5)[:, None]
        path[:, 1] += 0.0
        path += out * (flick * s**4)[:, None]
        kernel = np.hanning(9)[:, None] / np.hanning(9).sum()
        padded = np.pad(path, ((4, 4), (0, 0)), mode="reflect", reflect_type="odd")
        path = np.stack(
            [np.convolve(padded[:, i], kernel[:, 0], "valid") for i in range(3)], axis=-1
        )
        radius = (
            width
            * np.clip(s / 0.12, 0.25, 1) ** 0.6
            * (1 - 0.72 * s**4)
            * np.where(s > 0.985, 0.45, 1)
        )
        parts.append(tube(path, radius, flat=0.50, normal=_outward(path), sides=16))

    rows = np.linspace(0.62, -0.95, 9)  # along the parting, from the brow to the nape (z)
    for side in (-1, 1):
        for row, z in enumerate(rows):
            for layer in range(3):
                jitter = rng.normal(0, 0.02, 3)
                reach = 0.86 + 0.05 * layer
                back = row / (len(rows) - 1)
                start = (
                    np.array([part_x + 0.02 * side, 1.12 - 0.30 * abs(back - 0.45), z * 0.9])
                    + jitter * 0.4
                )
                fall = (
                    (-0.70 + 0.05 * rng.normal() - 0.08 * layer)
                    if back > 0.22
                    else (-0.50 - 0.09 * layer)
                )
                depth = 0.30 - 1.15 * back if back > 0.1 else 0.36
                if side > 0 and back <= 0.12:  # the fringe sweeps across the brow
                    end = np.array([0.83, -0.06 - 0.14 * layer, 0.26]) + jitter
                    middle = np.array([0.36, 0.98 + 0.05 * layer, 0.86])
                elif side < 0 and back <= 0.12:
                    end = np.array([-0.83, -0.02 - 0.14 * layer, 0.36]) + jitter
                    middle = np.array([-0.66, 0.86, 0.62])
                else:
                    angle = np.pi / 2 - side * (0.35 + 0.0 * back)
                    end = (
                        np.array(
                            [side * reach * math.cos(0.9 * back**1.5 * 1.6), fall, depth * 0.85]
                        )
                        + jitter
                    )
                    middle = np.array([side * 0.98, 0.80 - 0.2 * back, z * 0.75])
                    del angle
                lock(
                    start,
                    end,
                    middle,
                    0.115 - 0.012 * layer + 0.012 * rng.normal(),
                    0.085 + 0.03 * layer,
                    -0.16 if back > 0.15 else -0.04,
                )
    # The cap: the cranium, grown a little, without the face.
    rows_n, columns = 60, 80
    a = np.linspace(0.0, 1.0, rows_n)[:, None]
    b = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    front = np.clip(np.sin(b), 0, 1)  # b = pi/2 looks forward
    limit = np.radians(118) - np.radians(66) * front**1.3
    polar = a * limit
    d = np.stack(
        [np.sin(polar) * np.cos(b), np.cos(polar) * np.ones_like(b), np.sin(polar) * np.sin(b)],
        axis=-1,
    )
    centre = np.array([0, 0.1, -0.05])
    q = centre + d
    ray = _unit(q - face_math.CENTRE)
    r = face_math.surface_radius(ray) + 0.055 * np.clip((1 - a) / 0.25, 0, 1) ** 0.5 - 0.012
    parts.append(
        (
            (face_math.CENTRE + r[..., None] * ray).reshape(-1, 3),
            sheet(rows_n, columns, closed=True),
        )
    )
    return parts


def _build_light() -> None:
    def area(
        name: str, at: tuple[float, float, float], size: float, power: float, color: Sequence[float]
    ) -> None:
        light = bpy.data.lights.new(name, "AREA")
        light.shape, light.size, light.energy, light.color = "DISK", size, power, color
        made = bpy.data.objects.new(name, light)
        bpy.context.collection.objects.link(made)
        made.location = point(*at)
        direction = point(0, -0.2, 0.2) - made.location
        made.rotation_euler = direction.to_track_quat("-Z", "Y").to_euler()

    area("key", (-2.6, 2.2, 3.6), 2.0, 300, (1.0, 0.92, 0.82))
    area("fill", (3.4, 0.4, 3.0), 3.0, 85, (0.86, 0.92, 1.0))
    area("rim", (2.6, 2.2, -2.6), 1.6, 210, (1.0, 0.86, 0.70))
    area("rim-left", (-2.8, 1.4, -2.4), 1.4, 90, (0.70, 0.85, 1.0))
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.52, 0.60, 0.72, 1)
    world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.32
