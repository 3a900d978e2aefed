"""A drawn face in place of the rendered one: a studio folder in a second, for tests and trials."""

import json
from pathlib import Path

import cv2
import numpy as np

from lipwire.domain import CropRect, UInt8Array

CONTROLS = 6
"""Open, wide, round, press, bite, tongue; the drawing shows the first three."""

FRAME_WIDTH, FRAME_HEIGHT = 320, 240
SIDE_PX = 120


def draw_face(frame: int, controls: np.ndarray) -> UInt8Array:
    """(240, 320, 3) BGR: frame ``frame`` (the head sways), the mouth posed by ``controls``."""
    picture = np.full((FRAME_HEIGHT, FRAME_WIDTH, 3), (140, 120, 90), np.uint8)
    box = rectangle(frame)
    x, y = box.x1 + SIDE_PX // 2, box.y1 + SIDE_PX // 2
    cv2.ellipse(picture, (x, y - 15), (70, 90), 0, 0, 360, (120, 150, 200), -1, cv2.LINE_AA)
    cv2.circle(picture, (x, y - 12), 10, (110, 140, 190), -1, cv2.LINE_AA)
    opening, wide, narrow = (float(value) for value in controls[:3])
    mouth = (x, y + 25)
    lips = (round(16 + 9 * wide - 8 * narrow), round(3 + 14 * opening))
    cv2.ellipse(picture, mouth, lips, 0, 0, 360, (80, 80, 190), -1, cv2.LINE_AA)
    if lips[1] > 4:
        inner = (lips[0] - 3, lips[1] - 3)
        cv2.ellipse(picture, mouth, inner, 0, 0, 360, (20, 10, 40), -1, cv2.LINE_AA)
    return picture


def rectangle(frame: int) -> CropRect:
    """The crop rectangle of base frame ``frame``."""
    x1 = 100 + round(6 * float(np.sin(frame / 3)))
    y1 = 70 + round(3 * float(np.cos(frame / 4)))
    return CropRect(x1, y1, x1 + SIDE_PX, y1 + SIDE_PX)


def write_studio_folder(folder: Path, *, frames: int = 8, pairs: int = 64, seed: int = 0) -> None:
    """Write ``folder`` as rendering would have: base frames, rectangles and pairs."""
    rng = np.random.default_rng(seed)
    (folder / "base").mkdir(parents=True)
    (folder / "pairs").mkdir()
    for frame in range(frames):
        _write(folder / "base" / f"frame_{frame:04d}.png", draw_face(frame, np.zeros(CONTROLS)))
    boxes = [rectangle(frame) for frame in range(frames)]
    listed = [[box.x1, box.y1, box.x2, box.y2] for box in boxes]
    (folder / "crop_rects.json").write_text(json.dumps(listed))
    entries = []
    for number in range(pairs):
        frame = int(rng.integers(frames))
        controls = rng.random(CONTROLS)
        box = boxes[frame]
        truth = draw_face(frame, controls)[box.y1 : box.y2, box.x1 : box.x2]
        file = f"pairs/{number:06d}.png"
        _write(folder / file, truth)
        entries.append({"frame": frame, "controls": controls.tolist(), "file": file})
    (folder / "pairs" / "pairs.json").write_text(json.dumps(entries))


def _write(path: Path, picture: UInt8Array) -> None:
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
