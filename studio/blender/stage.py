"""The camera, the renderer, and shots of the character. Needs Blender as a module (``bpy``)."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bpy
from bpy_extras.object_utils import world_to_camera_view

from lipwire.domain import CropRect, LipwireError, UInt8Array
from studio.blender.character import Character
from studio.blender.objects import look_at, place, point
from studio.meshes.face import REST
from studio.meshes.shapes import Array
from studio.motion import FRAMES, pose
from studio.pictures import HEIGHT_PX, RECT_PX, WIDTH_PX, read_picture

SAMPLES: Final = 5
"""Rays a pixel; the denoiser does the rest."""
SEED: Final = 11
BOUNCES: Final = 4


class Stage:
    """The character before the camera. One at a time: Blender has one scene open."""

    def __init__(self) -> None:
        self.character = Character()
        self.scene = bpy.context.scene
        self.camera = set_up_camera(self.scene)
        _set_up_renderer(self.scene)
        self._scratch = Path(bpy.app.tempdir) / f"shot-{os.getpid()}.png"

    def rect(self, frame: int) -> CropRect:
        """The crop rectangle of ``frame`` of the idle loop."""
        self.character.pose(pose(frame, FRAMES), REST)
        bpy.context.view_layer.update()
        seen = world_to_camera_view(self.scene, self.camera, self.character.mouth_position())
        x = round(seen.x * WIDTH_PX - RECT_PX / 2)
        y = round((1 - seen.y) * HEIGHT_PX - RECT_PX / 2)
        return CropRect(x, y, x + RECT_PX, y + RECT_PX)

    def shoot(self, frame: int, controls: Array, box: CropRect) -> UInt8Array:
        """Render ``box`` of ``frame`` with the mouth at ``controls`` (6,): (h, w, 4) BGRA uint8.

        Straight alpha; nothing is behind the character. Raises `LipwireError` when Blender fails,
        and `KeyboardInterrupt` when it was stopped.
        """
        self.character.pose(pose(frame, FRAMES), controls)
        render = self.scene.render
        render.use_border = render.use_crop_to_border = True
        # A quarter of a pixel in, so that rounding in single precision never adds or drops a row.
        render.border_min_x, render.border_max_x = (
            (box.x1 + 0.25) / WIDTH_PX,
            (box.x2 + 0.25) / WIDTH_PX,
        )
        render.border_min_y, render.border_max_y = (
            1 - (box.y2 - 0.25) / HEIGHT_PX,
            1 - (box.y1 - 0.25) / HEIGHT_PX,
        )
        render_to(self._scratch)
        return read_picture(self._scratch, box, channels=4)


def set_up_camera(scene: Any) -> Any:
    """The one camera of all pictures: a portrait lens at the height of the mouth."""
    camera = bpy.data.cameras.new("camera")
    camera.lens, camera.sensor_width = 46, 36  # millimetres
    made = place("camera", camera, point(0, -0.30, 8.2))
    look_at(made, point(0, -0.36, 0))
    scene.camera = made
    return made


def render_to(path: Path) -> None:
    """Render the open scene to ``path``. Raises `LipwireError`, `KeyboardInterrupt`."""
    path.unlink(missing_ok=True)  # or the last picture would pass for this one
    bpy.context.scene.render.filepath = str(path)
    try:
        with _late_interrupt(), _quiet_stdout():
            result = bpy.ops.render.render(write_still=True)
    except RuntimeError as error:  # all that Blender raises; its message has many lines
        raise LipwireError(f"Blender could not render: {' '.join(str(error).split())}") from error
    if "FINISHED" not in result or not path.exists():
        raise LipwireError(f"Blender rendered nothing to {path}: {', '.join(sorted(result))}")


def _set_up_renderer(scene: Any) -> None:
    render, cycles, view = scene.render, scene.cycles, scene.view_settings
    render.engine = "CYCLES"
    cycles.device = "CPU"
    cycles.samples = SAMPLES
    cycles.seed = SEED
    cycles.use_adaptive_sampling = False
    cycles.use_denoising = True
    cycles.denoiser = "OPENIMAGEDENOISE"
    cycles.denoising_prefilter = "FAST"
    cycles.denoising_quality = "BALANCED"
    cycles.max_bounces = BOUNCES
    cycles.caustics_reflective = cycles.caustics_refractive = False
    render.film_transparent = True
    render.resolution_x, render.resolution_y = WIDTH_PX, HEIGHT_PX
    render.use_persistent_data = True
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode = "RGBA"
    render.image_settings.compression = 1
    view.view_transform = "AgX"
    view.look = "AgX - Medium High Contrast"
    view.exposure = 0.35


@contextmanager
def _late_interrupt() -> Iterator[None]:
    """Keep Ctrl-C for the end of the picture.

    Python's handler would raise inside the renderer's own script, which drops the exception and
    calls half a picture finished.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if seen:
        raise KeyboardInterrupt


@contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Blender prints lines for each picture from C; keep them out of the progress."""
    sys.stdout.flush()
    saved = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(null)
        os.close(saved)
