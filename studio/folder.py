"""The dataset folder that the studio fills, and what is still missing in it.

`lipwire.training.dataset` describes the folder. Every file in it is whole, and all that is there is
kept: a stopped run goes on where it was. What would not fit to what is there is refused.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lipwire.domain import CropRect, InvalidInput, NotFound, UInt8Array, ping_pong
from lipwire.training.visemes import CONTROLS
from studio.meshes.face import REST
from studio.meshes.shapes import Array
from studio.motion import FRAMES
from studio.pictures import WHOLE, cut, faded_into, head_box, over, read_picture, save_png
from studio.storage import make_folder, write_json, write_npy

if TYPE_CHECKING:  # Blender is loaded only where something is rendered
    from studio.blender.stage import Stage

GOLDEN_RATIO: Final = 0.6180339887498949
REPORT_EVERY: Final = 10
"""Pictures between two lines of progress."""


def read_controls(path: Path) -> Array:
    """Mouth controls (n, 6) float64 in [0, 1], n at least 1, out of an .npy file.

    Raises `NotFound` and `InvalidInput`.
    """
    if not path.is_file():
        raise NotFound(f"{path} is missing; it holds the mouth controls to render")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InvalidInput(f"{path} is not an .npy file of numbers: {error}") from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise InvalidInput(f"{path} is an .npz archive; an .npy file of one array is needed")
    if loaded.ndim != 2 or loaded.shape[1] != len(CONTROLS) or not len(loaded):
        raise InvalidInput(f"{path} has the shape {loaded.shape}; (n, {len(CONTROLS)}) is needed")
    if loaded.dtype.kind not in "fiu":
        raise InvalidInput(f"{path} holds {loaded.dtype}; real numbers are needed")
    controls = loaded.astype(np.float64)
    wrong = np.argwhere(~((controls >= 0) & (controls <= 1)))  # NaN is neither
    if len(wrong):
        row, column = (int(n) for n in wrong[0])
        raise InvalidInput(
            f"{path} has {CONTROLS[column]} = {controls[row, column]:g} in row {row}; "
            "controls are in [0, 1]"
        )
    return controls


def spread_order(count: int) -> Iterator[int]:
    """0..count-1 so that any beginning of it covers the whole range (golden-ratio steps)."""
    seen: set[int] = set()
    position = 0.0
    while len(seen) < count:
        position = (position + GOLDEN_RATIO) % 1.0
        pick = int(position * count)
        while pick in seen:
            pick = (pick + 1) % count
        seen.add(pick)
        yield pick


def mouth_frames(count: int, per_frame: int) -> list[int]:
    """The frame that each of ``count`` mouths is shown on: ``per_frame`` each, in rounds."""
    order = list(spread_order(FRAMES))
    return [order[number // per_frame % FRAMES] for number in range(count)]


class StudioFolder:
    """The folder ``out`` with its room, filled with pictures of ``stage``.

    Raises `NotFound` without a room, `InvalidInput` where ``out`` holds pictures of another
    character, `StorageFailed`.
    """

    def __init__(self, out: Path, stage: "Stage") -> None:
        self._out = out
        self._stage = stage
        self._room = read_room(out)
        self._rects = [stage.rect(frame) for frame in range(FRAMES)]
        self._keep_rects(out / "crop_rects.json")
        for name in ("base", "pairs", "eval"):
            make_folder(out / name)
        self._still = self._render_still()

    def render_loop(self, controls: Array, per_frame: int) -> None:
        """Base frames and mouths in turn, so that training can begin before all is there.

        ``controls`` is (n, 6); the mouths take its rows in order. Raises `InvalidInput` where the
        folder's mouths were rendered from other rows.
        """
        listing = self._out / "pairs" / "pairs.json"
        pairs = _read_pairs(listing, controls)
        progress = _Progress("mouths", len(controls))
        for number, frame in enumerate(mouth_frames(len(controls), per_frame)):
            listed = number < len(pairs)
            pair = pairs[number] if listed else _pair(number, frame, controls)
            self._render_base(pair["frame"])
            path = self._out / pair["file"]
            if listed and path.exists():
                continue
            self._render_mouth(pair["frame"], controls[number], path)
            if not listed:
                pairs.append(pair)
                write_json(listing, pairs)
            progress.made_one(number + 1)
        for frame in spread_order(FRAMES):
            self._render_base(frame)

    def render_sequence(self, name: str, controls: Array) -> None:
        """A held-out sequence: picture i has row i of ``controls`` (n, 6), the loop back and forth.

        ``controls.npy`` beside the pictures is written where it is missing. Raises `InvalidInput`
        where the sequence of that name has other controls.
        """
        folder = self._out / "eval" / name
        make_folder(folder)
        beside = folder / "controls.npy"
        if not beside.exists():
            write_npy(beside, controls.astype(np.float32))
        elif not np.array_equal(read_controls(beside).astype(np.float32), controls.astype("f4")):
            raise InvalidInput(f"{beside} has other controls than those to be rendered")
        progress = _Progress(f"pictures of {name}", len(controls))
        for i, row in enumerate(controls):
            path = folder / f"{i:04d}.png"
            if not path.exists():
                self._render_mouth(ping_pong(i, FRAMES), row, path)
                progress.made_one(i + 1)

    def _keep_rects(self, path: Path) -> None:
        """Write the crop rectangles, or make sure that they are the ones of the pictures there."""
        rects = [[rect.x1, rect.y1, rect.x2, rect.y2] for rect in self._rects]
        if path.exists():
            if _read_json(path) != rects:
                raise InvalidInput(
                    f"{path} has other crop rectangles than this character; use an empty folder"
                )
        else:
            write_json(path, rects)

    def _render_still(self) -> UInt8Array:
        """The room with the body: what stays the same in every frame."""
        path = self._out / "still.png"
        if not path.exists():
            save_png(path, self._composed(0, REST, WHOLE))
        return read_picture(path)

    def _render_base(self, frame: int) -> None:
        """One frame of the idle loop: the head freshly rendered, the rest from the still."""
        path = self._out / "base" / f"frame_{frame:04d}.png"
        if not path.exists():
            box = head_box(self._rects[frame])
            save_png(path, faded_into(self._still, self._composed(frame, REST, box), box))

    def _render_mouth(self, frame: int, controls: Array, path: Path) -> None:
        """The truth: exactly the frame's rectangle with the mouth at ``controls``."""
        save_png(path, self._composed(frame, controls, self._rects[frame]))

    def _composed(self, frame: int, controls: Array, box: CropRect) -> UInt8Array:
        return over(self._stage.shoot(frame, controls, box), cut(self._room, box))


def read_room(out: Path) -> UInt8Array:
    """The room (720, 1280, 3) of the folder ``out``. Raises `NotFound`, `InvalidInput`."""
    path = out / "room.png"
    if not path.exists():
        raise NotFound(f"{path} is missing; render the stage `room` first")
    return read_picture(path)


class _Progress:
    """A line for every few pictures, with the time that is left."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._begun_s, self._made = time.monotonic(), 0

    def made_one(self, there: int) -> None:
        """One more was made, ``there`` of the total are there now."""
        self._made += 1
        if self._made % REPORT_EVERY and there < self._total:
            return
        each_s = (time.monotonic() - self._begun_s) / self._made
        left_min = each_s * (self._total - there) / 60
        print(
            f"{there} of {self._total} {self._what}, {each_s:.2f} s each, {left_min:.0f} min left",
            flush=True,
        )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from error


def _pair(number: int, frame: int, controls: Array) -> dict[str, Any]:
    """One entry of pairs.json: row ``number`` of ``controls`` on ``frame``."""
    row = [round(float(c), 5) for c in controls[number]]
    return {"frame": frame, "controls": row, "file": f"pairs/{number:06d}.png"}


def _read_pairs(path: Path, controls: Array) -> list[dict[str, Any]]:
    """What pairs.json lists. As far as both go, it has to show the rows of ``controls``.

    The frames may be others: the first mouths may have been rendered with another ``per_frame``.
    """
    pairs = _read_json(path) if path.exists() else []
    if not isinstance(pairs, list):
        raise InvalidInput(f"{path} is not a list")
    for number, pair in enumerate(pairs):
        frame = pair.get("frame") if isinstance(pair, dict) else None
        if not isinstance(frame, int) or not 0 <= frame < FRAMES:
            raise InvalidInput(f"{path}: pair {number} has no frame in 0..{FRAMES - 1}")
        if number < len(controls) and pair != _pair(number, frame, controls):
            raise InvalidInput(
                f"{path}: pair {number} does not show row {number} of the controls; go on with the "
                "controls it was begun with, or use an empty folder"
            )
    return pairs
