"""Render the demo character: the room, the idle loop, and mouths with their controls.

Run with Blender's Python module: ``python -m lipwire.training.studio.render --out DIR ...``.
The output is the dataset folder that :mod:`lipwire.training.dataset` reads. Everything already
rendered is kept, so a stopped run goes on where it was.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bpy
import cv2
import numpy as np
import numpy.typing as npt

from lipwire.training.studio.character import Character, point
from lipwire.training.studio.motion import pose

WIDTH, HEIGHT = 1280, 720
FRAMES = 250
RECT_PX = 240
REST = np.zeros(6)
SAMPLES = 5
HEAD_MARGIN_PX = (222, 285, 222, 225)  # left, up, right, down of the mouth: all that moves

Pixels = npt.NDArray[np.uint8]


class Stage:
    """The camera and the renderer. ``shoot`` returns BGRA pixels of a box of the picture."""

    def __init__(self) -> None:
        self.character = Character()
        self.scene = bpy.context.scene
        self.camera = _camera()
        self.scene.camera = self.camera
        render, cycles = self.scene.render, self.scene.cycles
        render.engine = "CYCLES"
        cycles.device = "CPU"
        cycles.samples = SAMPLES
        cycles.seed = 11
        cycles.use_adaptive_sampling = False
        cycles.use_denoising = True
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_prefilter = "FAST"
        cycles.denoising_quality = "BALANCED"
        cycles.max_bounces = 4
        cycles.caustics_reflective = cycles.caustics_refractive = False
        render.film_transparent = True
        render.resolution_x, render.resolution_y = WIDTH, HEIGHT
        render.use_persistent_data = True
        render.image_settings.file_format = "PNG"
        render.image_settings.color_mode = "RGBA"
        render.image_settings.compression = 1
        self.scene.view_settings.view_transform = "AgX"
        self.scene.view_settings.look = "AgX - Medium High Contrast"
        self.scene.view_settings.exposure = 0.35
        self._scratch = Path(bpy.app.tempdir) / f"shot-{os.getpid()}.png"

    def rect(self, frame: int) -> tuple[int, int, int, int]:
        """The crop rectangle of ``frame``: x1, y1, x2, y2 in pixels."""
        from bpy_extras.object_utils import world_to_camera_view

        self.character.pose(pose(frame, FRAMES), REST)
        bpy.context.view_layer.update()
        seen = world_to_camera_view(self.scene, self.camera, self.character.mouth_position())
        x, y = round(seen.x * WIDTH - RECT_PX / 2), round((1 - seen.y) * HEIGHT - RECT_PX / 2)
        return x, y, x + RECT_PX, y + RECT_PX

    def shoot(
        self, frame: int, controls: npt.NDArray[np.float64], box: tuple[int, int, int, int]
    ) -> Pixels:
        """Render ``box`` (x1, y1, x2, y2) of ``frame`` with the mouth at ``controls``: BGRA."""
        self.character.pose(pose(frame, FRAMES), controls)
        render = self.scene.render
        x1, y1, x2, y2 = box
        render.use_border = render.use_crop_to_border = True
        # Half a pixel in, so that rounding in single precision never adds or drops a row.
        render.border_min_x, render.border_max_x = (x1 + 0.25) / WIDTH, (x2 + 0.25) / WIDTH
        render.border_min_y, render.border_max_y = (
            1 - (y2 - 0.25) / HEIGHT,
            1 - (y1 - 0.25) / HEIGHT,
        )
        render.filepath = str(self._scratch)
        with _quiet():
            bpy.ops.render.render(write_still=True)
        pixels = cv2.imread(str(self._scratch), cv2.IMREAD_UNCHANGED)
        if pixels.shape != (y2 - y1, x2 - x1, 4):
            raise RuntimeError(
                f"asked for {x2 - x1}x{y2 - y1} pixels, Blender gave {pixels.shape[1]}x{pixels.shape[0]}"
            )
        return pixels


class _quiet:
    """Blender prints a line a frame from C; keep it out of the progress."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self._saved = os.dup(1)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 1)
        os.close(self._saved)


def _camera() -> Any:
    camera = bpy.data.cameras.new("camera")
    camera.lens, camera.sensor_width = 46, 36
    made = bpy.data.objects.new("camera", camera)
    bpy.context.collection.objects.link(made)
    made.location = point(0, -0.30, 8.2)
    made.rotation_euler = (point(0, -0.36, 0) - made.location).to_track_quat("-Z", "Y").to_euler()
    return made


def over(front: Pixels, back: Pixels) -> Pixels:
    """Straight-alpha BGRA ``front`` over BGR ``back``."""
    alpha = front[..., 3:].astype(np.float32) / 255
    mixed = front[..., :3] * alpha + back * (1 - alpha)
    return np.asarray(mixed + 0.5, dtype=np.uint8)


def save_png(path: Path, pixels: Pixels) -> None:
    """Write under another name first: a file that is there is whole."""
    partial = path.with_name(path.name + ".part.png")
    if not cv2.imwrite(str(partial), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 4]):
        raise OSError(f"could not write {partial}")
    partial.replace(path)


class Studio:
    """The dataset folder and what is still missing in it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        for name in ("base", "pairs", "eval"):
            (out / name).mkdir(parents=True, exist_ok=True)
        self.stage = Stage()
        self.rects = [self.stage.rect(i) for i in range(FRAMES)]
        (out / "crop_rects.json").write_text(json.dumps([list(r) for r in self.rects]))
        room = cv2.imread(str(out / "room.png"))
        if room is None:
            raise FileNotFoundError(f"{out / 'room.png'}: run the stage `room` first")
        self.set = self._still(room)

    def _still(self, room: Pixels) -> Pixels:
        """The room with the body: what stays the same in every frame."""
        path = self.out / "still.png"
        if not path.exists():
            save_png(path, over(self.stage.shoot(0, REST, (0, 0, WIDTH, HEIGHT)), room))
        return cv2.imread(str(path))

    def base(self, frame: int, room: Pixels) -> None:
        """One frame of the idle loop: the head freshly rendered, the rest from the still."""
        path = self.out / "base" / f"frame_{frame:04d}.png"
        if path.exists():
            return
        x1, y1, x2, y2 = self.rects[frame]
        left, up, right, down = HEAD_MARGIN_PX
        cx, cy = (x1 + x2) // 2, (y1 + y2) // 2
        box = (cx - left, max(cy - up - 120, 0), cx + right, min(cy + down - 60, HEIGHT))
        bx1, by1, bx2, by2 = box
        fresh = over(self.stage.shoot(frame, REST, box), room[by1:by2, bx1:bx2])
        picture = self.set.copy()
        ramp = np.clip((by2 - by1 - 1 - np.arange(by2 - by1)) / 28, 0, 1)[:, None, None]
        picture[by1:by2, bx1:bx2] = fresh * ramp + picture[by1:by2, bx1:bx2] * (1 - ramp) + 0.5
        save_png(path, picture)

    def mouth(
        self, frame: int, controls: npt.NDArray[np.float64], path: Path, room: Pixels
    ) -> None:
        """The truth: exactly the frame's rectangle with the mouth at ``controls``."""
        x1, y1, x2, y2 = self.rects[frame]
        save_png(
            path, over(self.stage.shoot(frame, controls, (x1, y1, x2, y2)), room[y1:y2, x1:x2])
        )


def spread_order(count: int) -> Iterator[int]:
    """0..count-1 so that any beginning of it covers the whole range (golden-ratio steps)."""
    seen: set[int] = set()
    position = 0.0
    while len(seen) < count:
        position = (position + 0.6180339887498949) % 1.0
        pick = int(position * count)
        while pick in seen:
            pick = (pick + 1) % count
        seen.add(pick)
        yield pick


def run_loop(studio: Studio, controls: npt.NDArray[np.float64], per_frame: int) -> None:
    """Base frames and mouths in turn, so that training can begin before all is there.

    ``controls`` is (n, 6); mouths take its rows in order, ``per_frame`` for each frame of a round.
    """
    room = cv2.imread(str(studio.out / "room.png"))
    listing = studio.out / "pairs" / "pairs.json"
    pairs: list[dict[str, Any]] = json.loads(listing.read_text()) if listing.exists() else []
    begun, made = time.monotonic(), 0
    order = list(spread_order(FRAMES))
    for round_number in range(-(-len(controls) // (per_frame * FRAMES))):
        for place, frame in enumerate(order):
            studio.base(frame, room)
            for k in range(per_frame):
                number = (round_number * FRAMES + place) * per_frame + k
                if number >= len(controls) or number < len(pairs):
                    continue
                name = f"pairs/{number:06d}.png"
                studio.mouth(frame, controls[number], studio.out / name, room)
                pairs.append(
                    {
                        "frame": frame,
                        "controls": [round(float(c), 5) for c in controls[number]],
                        "file": name,
                    }
                )
                made += 1
                if made % 10 == 0:
                    _write_json(listing, pairs)
                    rate = (time.monotonic() - begun) / made
                    print(f"{len(pairs)} mouths, {rate:.2f} s each", flush=True)
    _write_json(listing, pairs)


def run_eval(studio: Studio, name: str, controls: npt.NDArray[np.float64]) -> None:
    """A held-out sequence: frame i of the loop with row i of ``controls`` (back and forth past the end)."""
    from lipwire.domain import ping_pong

    room = cv2.imread(str(studio.out / "room.png"))
    folder = studio.out / "eval" / name
    folder.mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(controls):
        path = folder / f"{i:04d}.png"
        if not path.exists():
            studio.mouth(ping_pong(i, FRAMES), row, path, room)
            if i % 10 == 0:
                print(f"{name}: {i} of {len(controls)}", flush=True)


def _write_json(path: Path, value: object) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(value))
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["room", "loop", "eval"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--controls", type=Path, help=".npy of (n, 6) mouth controls")
    parser.add_argument("--per-frame", type=int, default=4, help="mouths for each frame of a round")
    parser.add_argument("--name", default="heldout", help="name of the held-out sequence")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.stage == "room":
        from lipwire.training.studio.room import render_room

        render_room(chosen.out / "room.png")
        return
    controls = np.load(chosen.controls).astype(np.float64)
    studio = Studio(chosen.out)
    if chosen.stage == "loop":
        run_loop(studio, controls, chosen.per_frame)
    else:
        run_eval(studio, chosen.name, controls)


if __name__ == "__main__":
    main()
