"""The compositor against the plain way: encoding, converting and pasting only what changed.

The picture is made here: smooth shapes with fine texture, which takes about 120 kB as a JPEG of
quality 75 at 1280x720, as a photograph of a person does. The rectangles are 180 pixels wide and
lie everywhere, because how many segments they touch depends on where they are.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from lipwire.bench.harness import Comparison, compare
from lipwire.compose import (
    Background,
    PartialJpeg,
    bgr_to_i420,
    crop_rim,
    network_crop,
    paste_mouth,
    paste_patch_i420,
)
from lipwire.domain import MOUTH_PX, CropRect, UInt8Array

_QUALITY: Final = 75
_RECT_PX: Final = 180
_PLACES: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """One frame with its mouth: what both sides of a comparison start from."""

    rect: CropRect
    frame: UInt8Array  # (height, width, 3) uint8 BGR, the background
    patch: UInt8Array  # (box height, box width, 3), the background under the box
    rim: UInt8Array  # (15552,), see crop_rim
    background: Background
    planes: UInt8Array  # I420 of the background
    mouth: UInt8Array  # (320, 320, 3)

    @property
    def origin(self) -> tuple[int, int]:
        return self.background.box.x1, self.background.box.y1


def run(rounds: int = 200) -> list[Comparison]:
    """Compare working on only the part of a frame that changes, round the mouth, with working on
    whole frames, in ``rounds`` rounds. Returns three results for each of the sizes 1280x720 and
    1920x1080: encoding as JPEG; cropping, pasting the mouth and encoding as JPEG; and cropping,
    pasting the mouth and converting to I420.

    Raises RuntimeError when a partial frame does not have the pixels of the full one.
    """
    results: list[Comparison] = []
    for width, height in ((1280, 720), (1920, 1080)):
        results += _compare_size(width, height, rounds)
    return results


def textured_picture(width: int, height: int, seed: int = 0) -> UInt8Array:
    """Return a synthetic picture, (height, width, 3) uint8 BGR, with shades, shapes and grain as
    strong as a photograph's. The same ``seed`` gives the same picture."""
    rng = np.random.default_rng(seed)

    def layer(grid_px: int, strength: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        size = (height // grid_px + 2, width // grid_px + 2, 3)
        points = rng.normal(0, strength, size).astype(np.float32)
        grown = cv2.resize(points, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(grown, dtype=np.float32)

    picture = 128 + layer(64, 40) + layer(8, 14) + layer(2, 6)
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def _compare_size(width: int, height: int, rounds: int) -> list[Comparison]:
    layout = PartialJpeg(width, height, _QUALITY)
    jobs = _jobs(layout)
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    size = f"{width}x{height}"

    def partial(job: _Job) -> bytes:
        return layout.encode(job.background, job.patch)

    def full(job: _Job) -> bytes:
        return cv2.imencode(".jpg", job.frame, options)[1].tobytes()

    def composite(job: _Job) -> bytes:
        network_crop(job.patch, job.rect, 4, job.origin)
        patch = job.patch.copy()
        paste_mouth(patch, job.origin, job.mouth, job.rect, 4, job.rim)
        return layout.encode(job.background, patch)

    def composite_plainly(job: _Job) -> bytes:
        network_crop(job.frame, job.rect, 4)
        frame = job.frame.copy()
        paste_mouth(frame, (0, 0), job.mouth, job.rect, 4)
        return cv2.imencode(".jpg", frame, options)[1].tobytes()

    def planes(job: _Job) -> UInt8Array:
        network_crop(job.patch, job.rect, 4, job.origin)
        patch = job.patch.copy()
        paste_mouth(patch, job.origin, job.mouth, job.rect, 4, job.rim)
        copy = job.planes.copy()
        paste_patch_i420(copy, patch, *job.origin)
        return copy

    def planes_plainly(job: _Job) -> UInt8Array:
        network_crop(job.frame, job.rect, 4)
        frame = job.frame.copy()
        paste_mouth(frame, (0, 0), job.mouth, job.rect, 4)
        return bgr_to_i420(frame)

    for job in jobs:
        _require_equal(_decoded(partial(job)), _decoded(full(job)), f"JPEG at {size}")
        _require_equal(
            _decoded(composite(job)), _decoded(composite_plainly(job)), f"frame at {size}"
        )
        _require_equal(planes(job), planes_plainly(job), f"planes at {size}")
    growth = sum(len(partial(job)) for job in jobs) / sum(len(full(job)) for job in jobs) - 1
    kilobytes = len(jobs[0].background.jpeg) / 1000
    return [
        compare(
            f"JPEG {size}",
            _in_turn(partial, jobs),
            _in_turn(full, jobs),
            label_a="partial JPEG",
            label_b="cv2.imencode",
            rounds=rounds,
            notes=f"decode bit-identically; {kilobytes:.0f} kB, {growth:+.1%} for restart markers",
        ),
        compare(
            f"crop, paste and JPEG {size}",
            _in_turn(composite, jobs),
            _in_turn(composite_plainly, jobs),
            label_a="on the patch",
            label_b="on the whole frame",
            rounds=rounds,
            notes="everything but the network, for a frame as JPEG",
        ),
        compare(
            f"crop, paste and I420 {size}",
            _in_turn(planes, jobs),
            _in_turn(planes_plainly, jobs),
            label_a="on the patch",
            label_b="on the whole frame",
            rounds=rounds,
            notes="everything but the network, for a frame before H.264",
        ),
    ]


def _jobs(layout: PartialJpeg) -> list[_Job]:
    frame = textured_picture(layout.width, layout.height)
    planes = bgr_to_i420(frame)
    mouth = textured_picture(MOUTH_PX, MOUTH_PX, seed=1)
    rng = np.random.default_rng(2)
    jobs = []
    for _ in range(_PLACES):
        x = int(rng.integers(0, layout.width - _RECT_PX))
        y = int(rng.integers(0, layout.height - _RECT_PX))
        rect = CropRect(x, y, x + _RECT_PX, y + _RECT_PX)
        background = layout.background(frame, rect)
        box = background.box
        patch = frame[box.y1 : box.y2, box.x1 : box.x2].copy()
        jobs.append(_Job(rect, frame, patch, crop_rim(frame, rect), background, planes, mouth))
    return jobs


def _in_turn(call: Callable[[_Job], object], jobs: list[_Job]) -> Callable[[], object]:
    """A call that takes the next job each time; both sides of a comparison take them in one
    order.
    """
    turns = itertools.cycle(jobs)
    return lambda: call(next(turns))


def _decoded(jpeg: bytes) -> UInt8Array:
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise RuntimeError("a JPEG does not decode")
    return np.asarray(pixels, dtype=np.uint8)


def _require_equal(ours: UInt8Array, plain: UInt8Array, what: str) -> None:
    if not np.array_equal(ours, plain):
        raise RuntimeError(f"the {what} does not have the pixels of the plain way")
