"""The character as a Blender scene. Needs Blender as a module (``bpy``).

Everything is built from formulas with fixed seeds; there is no face of a real person behind it.
`Character.pose` is the only thing that moves it.
"""

import math
from typing import Any, Final

import bpy
from mathutils import Euler, Matrix

from studio.blender import materials
from studio.blender.light import portrait_light
from studio.blender.objects import empty, mesh_object, move_vertices, point, tint_vertices
from studio.meshes import clothes, eyes, face, mouth
from studio.meshes.hair import hair
from studio.meshes.shapes import Array, Mesh, unit_sphere
from studio.meshes.skin import face_tint
from studio.motion import Pose

UPPER_LID_OPEN_RAD: Final = math.radians(-13)
UPPER_LID_TRAVEL_RAD: Final = math.radians(53)
LOWER_LID_TRAVEL_RAD: Final = math.radians(-12)
TONGUE_TURN_RAD: Final = math.radians(16)


class Character:
    """The built scene; it replaces whatever Blender had open."""

    def __init__(self) -> None:
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self._grid = face.build_grid()
        self._head = empty("head")
        self._jaw = empty("jaw", self._head)
        self._face = self._build_face()
        self._build_teeth()
        self._tongue = self._build_tongue()
        self._eyes, self._lids = self._build_eyes()
        self._brows = mesh_object("brows", eyes.brows(), materials.brow_hair(), self._head)
        mesh_object("hair", hair(), materials.head_hair(), self._head)
        self._body = self._build_body()
        portrait_light()

    def pose(self, pose: Pose, controls: Array) -> None:
        """Set the frame's pose and the mouth ``controls`` (6,): `visemes.CONTROLS`, in [0, 1]."""
        self._head.rotation_euler = Euler((pose.pitch, pose.roll, pose.yaw), "ZXY")
        self._head.location = point(pose.shift[0], pose.shift[1], 0.0)
        self._body.location = point(pose.shift[0] * 0.3, 0.006 * pose.breath, 0.0)
        self._pose_mouth(controls)
        for eye in self._eyes:  # they keep looking at the viewer while the head turns, in part
            eye.rotation_euler = Euler(
                (pose.gaze[1] - 0.4 * pose.pitch, 0, pose.gaze[0] - 0.6 * pose.yaw)
            )
        for upper, lower in self._lids:
            upper.rotation_euler = Euler(
                (UPPER_LID_OPEN_RAD + UPPER_LID_TRAVEL_RAD * pose.lid, 0, 0)
            )
            lower.rotation_euler = Euler((LOWER_LID_TRAVEL_RAD * pose.lid, 0, 0))
        self._brows.location = point(0, 0.012 * pose.brow - 0.02 * pose.lid, 0)

    def mouth_position(self) -> Any:
        """World position of the point the crop rectangle is centred on."""
        return self._head.matrix_world @ point(0.0, face.MOUTH_Y - 0.165, 0.62)

    def _pose_mouth(self, controls: Array) -> None:
        move_vertices(self._face, face.deform(self._grid, controls))
        opened, rounded, bite, tongue = (float(controls[i]) for i in (0, 2, 4, 5))
        angle = opened * (1 - 0.25 * bite) * face.JAW_DROP_RAD  # teeth on lip: not so far open
        hinge = Matrix.Translation(point(*face.JAW_HINGE))
        self._jaw.matrix_local = hinge @ Matrix.Rotation(angle, 4, "X") @ hinge.inverted()
        self._tongue.location = point(
            0, 0.085 * tongue * (0.5 + 0.5 * opened), 0.045 * tongue - 0.04 * rounded
        )
        self._tongue.rotation_euler = Euler((-TONGUE_TURN_RAD * tongue, 0, 0))

    def _build_face(self) -> Any:
        surface = materials.face_skin()
        shape = Mesh(face.deform(self._grid, face.REST), self._grid.faces)
        made = mesh_object("face", shape, surface, self._head)
        tint_vertices(made, face_tint(self._grid))
        return made

    def _build_teeth(self) -> None:
        enamel, flesh = materials.enamel(), materials.gum_flesh()
        for row, parent in ((mouth.UPPER_TEETH, self._head), (mouth.LOWER_TEETH, self._jaw)):
            mesh_object(f"teeth-{row.name}", mouth.teeth(row, self._grid.mouth), enamel, parent)
            mesh_object(f"gum-{row.name}", mouth.gum(row, self._grid.mouth), flesh, parent)

    def _build_tongue(self) -> Any:
        flesh = materials.tongue_flesh()
        root = empty("tongue-root", self._jaw)
        slit = self._grid.mouth
        _, y, z = mouth.TONGUE_ROOT
        root.location = point(0, slit[1] + y, slit[2] + z)
        return mesh_object("tongue", mouth.tongue(), flesh, root)

    def _build_eyes(self) -> tuple[list[Any], list[tuple[Any, Any]]]:
        """The eyes, and the holders of each one's upper and lower lid."""
        surface, skin, lash = materials.eye_surface(), materials.lid_skin(), materials.lash_hair()
        balls, lids = [], []
        for side in (-1, 1):
            socket = empty("socket", self._head)
            socket.location = point(side * eyes.EYE_X, eyes.EYE_Y, eyes.EYE_Z)
            socket.rotation_euler = Euler((0, 0, side * eyes.EYE_TURN_RAD))
            ball = mesh_object("eye", unit_sphere(), surface, socket)
            # Scaled, so that the material's own coordinates are those of the unit sphere.
            ball.scale = (eyes.EYE_RADIUS,) * 3
            balls.append(ball)
            upper = empty("lid-upper", socket)
            mesh_object("lid-upper", eyes.lid(eyes.UPPER_LID, side), skin, upper)
            mesh_object("lash", eyes.lash(side), lash, upper)
            lower = empty("lid-lower", socket)
            mesh_object("lid-lower", eyes.lid(eyes.LOWER_LID, side), skin, lower)
            lids.append((upper, lower))
        return balls, lids

    def _build_body(self) -> Any:
        body = empty("body")
        mesh_object("neck", clothes.neck(), materials.neck_skin(), body)
        wool = materials.knit()
        mesh_object("sweater", clothes.sweater(), wool, body)
        for roll in clothes.collar():
            mesh_object("collar", roll, wool, body)
        return body
