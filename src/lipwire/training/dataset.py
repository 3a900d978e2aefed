"""What the mouth renderer is trained on: pairs of crops, held in memory as bytes.

A *studio folder* is what rendering the demo character leaves behind::

    crop_rects.json        list of [x1, y1, x2, y2], one a base frame
    base/frame_0000.png    1280x720, the idle character, mouth closed
    pairs/pairs.json       list of {"frame": i, "controls": [...], "file": "pairs/000123.png"}
    pairs/000123.png       the truth inside base frame i's rectangle, mouth posed by the controls
    eval/NAME/             audio.wav, controls.npy (T, K), 0000.png ...: a spoken sequence, held out

Pairs may still be arriving: those whose file or base frame is not there yet are left out.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from lipwire.compose import BorderPx, network_crop
from lipwire.domain import (
    MASK_COLUMNS,
    MASK_ROWS,
    MOUTH_BORDER_PX,
    CropRect,
    Float32Array,
    InvalidInput,
    UInt8Array,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one training step, B of them. Pictures are (B, 320, 320, 3) uint8, BGR:
    ``real`` the crop whose mouth is to be repainted, ``masked`` the crop of the target's frame with
    the face black, ``target`` what the network should make. ``condition`` is (B, K) mouth controls
    in [0, 1], or (B, 32, 16, 16) audio windows, float32."""

    real: UInt8Array
    """(B, 320, 320, 3) BGR: the crop whose mouth is to be repainted (or a reference crop)."""
    masked: UInt8Array
    """(B, 320, 320, 3) BGR: the crop of the target's frame with the face blacked out."""
    condition: Float32Array
    """(B, K) mouth controls in [0, 1], or (B, 32, 16, 16) audio windows."""
    target: UInt8Array
    """(B, 320, 320, 3) BGR: what the network should make."""


class CropDataset(Protocol):
    """A dataset that training can draw samples from: ``len()`` is their number, and ``batch``
    returns some of them."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the samples of these ``indices``, (B,) integers from 0 up to but without the
        length, in their order; random changes to the samples are drawn from ``rng``. The caller may
        change the arrays."""


def masked_crop(crop: UInt8Array) -> UInt8Array:
    """Return a copy of ``crop``, (..., 320, 320, 3) uint8, in which the part that the network makes
    anew, rows 5 to 309 and columns 5 to 314, the last ones included, is black."""
    masked = crop.copy()
    masked[..., MASK_ROWS, MASK_COLUMNS, :] = 0
    return masked


def read_rectangles(path: Path) -> list[CropRect]:
    """Return the crop rectangles, one for each base frame (a picture of the character at rest), in
    the file ``path``: the ``crop_rects.json`` of a studio folder, which rendering the demo
    character has made. Raises InvalidInput where it is missing, no list of [x1, y1, x2, y2], or
    empty."""
    try:
        values = json.loads(path.read_text())
        rectangles = [CropRect(*(int(v) for v in value)) for value in values]
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{path} is missing: it lists the crop rectangle of every frame"
        ) from error
    except (OSError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path} is not a list of [x1, y1, x2, y2]: {error}") from error
    if not rectangles:
        raise InvalidInput(f"{path} lists no rectangles")
    return rectangles


def read_picture(path: Path) -> UInt8Array | None:
    """Return the picture at ``path``, (H, W, 3) BGR uint8; None where it is missing or damaged."""
    data = np.fromfile(path, np.uint8) if path.is_file() else np.empty(0, np.uint8)
    if not data.size:
        return None
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return None if picture is None else np.asarray(picture, np.uint8)


def read_base(studio: Path, frame: int) -> UInt8Array:
    """Return the base frame (a picture of the character at rest) with the number ``frame``, counted
    from 0, of the studio folder ``studio``, which rendering the demo character has made
    (``base/frame_0000.png`` and so on): (H, W, 3) BGR uint8. Raises InvalidInput where its file is
    missing or damaged."""
    path = studio / "base" / f"frame_{frame:04d}.png"
    picture = read_picture(path)
    if picture is None:
        raise InvalidInput(f"{path} is missing or damaged; every frame of the loop is needed")
    return picture


class PairDataset:
    """Training pairs of the studio folder ``folder``, each the crop of a base frame with mouth
    controls, and the crop of a rendered frame with that mouth. A ``CropDataset``, all in memory.

    ``border_px`` is the package's crop border: how many pixels on each side of the resized crop the
    network does not see (4 or 0). On average one sample in ``rest_every`` is replaced by a pair
    that teaches that at rest (all controls 0) nothing changes. Both pictures of a pair are moved
    together by up to ``shift_px`` pixels each way, so that fewer pairs are needed. Pairs whose
    pictures are missing are left out. Raises InvalidInput where the folder's rectangles or list of
    pairs are missing or wrong, or no pair has its pictures.
    """

    def __init__(
        self,
        folder: Path,
        *,
        border_px: BorderPx = MOUTH_BORDER_PX,
        rest_every: int = 16,
        shift_px: int = 3,
    ) -> None:
        self._rest_every = rest_every
        self._shift_px = shift_px
        rectangles = read_rectangles(folder / "crop_rects.json")
        index = folder / "pairs" / "pairs.json"
        try:
            listed = json.loads(index.read_text())
        except FileNotFoundError as error:
            raise InvalidInput(f"{index} is missing: it lists the training pairs") from error
        except ValueError as error:
            raise InvalidInput(f"{index} is not JSON: {error}") from error

        base_slot: dict[int, int] = {}
        bases: list[UInt8Array] = []
        targets: list[UInt8Array] = []
        slots: list[int] = []
        controls: list[list[float]] = []
        for entry in listed:
            frame = int(entry["frame"])
            if not 0 <= frame < len(rectangles):
                raise InvalidInput(
                    f"{index} names frame {frame}; there are {len(rectangles)} rectangles"
                )
            truth = read_picture(folder / entry["file"])
            if truth is None:
                continue
            rectangle = rectangles[frame]
            if truth.shape[:2] != (rectangle.height, rectangle.width):
                raise InvalidInput(
                    f"{entry['file']} is {truth.shape[1]}x{truth.shape[0]}; the rectangle of frame "
                    f"{frame} is {rectangle.width}x{rectangle.height}"
                )
            if frame not in base_slot:
                base = read_picture(folder / "base" / f"frame_{frame:04d}.png")
                if base is None:
                    continue
                base_slot[frame] = len(bases)
                bases.append(network_crop(base, rectangle, border_px))
            whole = CropRect(0, 0, rectangle.width, rectangle.height)
            targets.append(network_crop(truth, whole, border_px))
            slots.append(base_slot[frame])
            controls.append([float(value) for value in entry["controls"]])
        if not targets:
            raise InvalidInput(f"{index} lists no pair whose pictures are there")
        if len({len(values) for values in controls}) != 1:
            raise InvalidInput(f"{index} lists controls of different lengths")

        self.bases = np.stack(bases)  # (frames, 320, 320, 3) uint8 BGR
        self.targets = np.stack(targets)  # (pairs, 320, 320, 3) uint8 BGR
        self.slots = np.asarray(slots)  # (pairs,): the base of each pair
        self.controls = np.asarray(controls, np.float32)  # (pairs, K) in [0, 1]
        if not np.isfinite(self.controls).all():
            raise InvalidInput(f"{index} lists controls that are not finite")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def code_size(self) -> int:
        """How many mouth controls a sample has."""
        return int(self.controls.shape[1])

    def movement(self) -> Float32Array:
        """Return how much each block of 16x16 pixels of the crop changes from the base to the
        target, (20, 20) float32 in levels of 0-255.

        It is the 95th percentile over the pairs, averaged over the block, which suppresses render
        noise.
        """
        changes = []
        for slot, target in zip(self.slots, self.targets, strict=True):
            change = cv2.absdiff(
                *(
                    cv2.resize(p, (20, 20), interpolation=cv2.INTER_AREA)
                    for p in (self.bases[slot], target)
                )
            )
            changes.append(change.max(axis=2))
        return np.asarray(np.percentile(np.stack(changes), 95, axis=0), np.float32)

    def moving_window(self, share: float = 0.5) -> tuple[int, int, int, int]:
        """Return the rectangle of the 320x320 crop in which targets differ from their bases: (top,
        left, height, width), in pixels, all multiples of 16.

        It is the smallest around the blocks of 16x16 pixels that change, by ``movement``, at least
        ``share`` (0 to 1) as much as the one that changes most, and one more block on each side,
        within the crop. Raises InvalidInput where no block changes by 1 or more of the 255 levels.
        """
        movement = self.movement()
        if movement.max() < 1.0:
            raise InvalidInput("no pair differs from its base frame anywhere")
        rows, columns = np.nonzero(movement >= share * movement.max())
        top, left = max(0, int(rows.min()) - 1), max(0, int(columns.min()) - 1)
        bottom, right = min(20, int(rows.max()) + 2), min(20, int(columns.max()) + 2)
        return 16 * top, 16 * left, 16 * (bottom - top), 16 * (right - left)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the samples of these ``indices``, (B,) integers, with mouth controls as their
        conditions. Which of them are replaced by samples at rest, and how far all pictures are
        moved, is drawn from ``rng``. See ``CropDataset.batch``."""
        real, target = self.bases[self.slots[indices]], self.targets[indices]
        controls = self.controls[indices].copy()
        resting = rng.random(len(indices)) < 1.0 / self._rest_every
        target[resting], controls[resting] = real[resting], 0.0
        shift = tuple(rng.integers(-self._shift_px, self._shift_px + 1, 2).tolist())
        real, target = (np.roll(pictures, shift, (1, 2)) for pictures in (real, target))
        return Batch(real, masked_crop(real), controls, target)


class VideoDataset:
    """Samples made of a person's own video. The network is given frame i with the mouth black,
    another frame, and the speech of frame i; it should make frame i. A ``CropDataset``, all in
    memory; ``len()`` is the number of frames that are used.

    The other frame is drawn anew each time, at least ``apart`` frames away where the video is long
    enough, so that its mouth says nothing about the target's.
    """

    def __init__(
        self,
        frames: list[UInt8Array],
        rectangles: list[CropRect],
        windows: Float32Array,
        *,
        border_px: BorderPx = MOUTH_BORDER_PX,
        apart: int = 10,
    ) -> None:
        """``frames`` are (H, W, 3) uint8 BGR each, ``rectangles`` their crop rectangles, and
        ``windows`` what each of them hears, (T, 32, 16, 16) float32; the shortest of the three
        decides how many frames are used. ``apart`` is how many frames the other frame of a sample
        is away at least. ``border_px`` is the package's crop border (4 or 0). Raises InvalidInput
        for fewer than two frames, and for a rectangle that is not inside its frame."""
        count = min(len(frames), len(rectangles), len(windows))
        if count < 2:
            raise InvalidInput(f"a video of {count} usable frames; training needs at least 2")
        pairs = zip(frames[:count], rectangles[:count], strict=True)
        self.crops = np.stack([network_crop(frame, box, border_px) for frame, box in pairs])
        self.windows = windows[:count]
        self.apart = min(apart, (count - 1) // 2)

    def __len__(self) -> int:
        return len(self.crops)

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> Batch:
        """Return the samples of these ``indices``, (B,) integers, with audio windows as their
        conditions. The other frame of each is drawn from ``rng``. See ``CropDataset.batch``."""
        count = len(self)
        if self.apart > 0:
            steps = rng.integers(self.apart, count - self.apart + 1, len(indices))
        else:
            steps = rng.integers(1, count, len(indices))
        target = self.crops[indices]
        reference = self.crops[(indices + steps) % count]
        return Batch(reference, masked_crop(target), self.windows[indices], target)
