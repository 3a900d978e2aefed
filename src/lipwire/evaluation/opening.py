"""How far a mouth is open, measured in its picture.

The inside of a mouth is dark or pale (teeth); lips and skin are neither. In the middle columns of
the mouth, where the gap is highest, such pixels are counted: the opening is their mean number a
column, in pixels of the crop rectangle. The same measure is taken of the truth and of the output.
"""

import numpy as np
import numpy.typing as npt

from lipwire.domain import CropRect, Float32Array, UInt8Array
from lipwire.evaluation.material import Interior

LOUDEST_DB = 45.0
"""The loudest frame of a recording, in decibels above the floor of what is told apart."""


def interior_mask(pixels: UInt8Array, interior: Interior) -> npt.NDArray[np.bool_]:
    """Return where ``pixels``, (..., H, W, 3) uint8 BGR or RGB, show the inside of a mouth, (...,
    H, W) bool: dark, or pale as teeth are. ``interior`` has the limits of dark and pale."""
    most = pixels.max(axis=-1).astype(np.int16)
    least = pixels.min(axis=-1).astype(np.int16)
    pale = (most - least) < interior.pale_below * most
    return np.asarray((most < interior.dark_below) | pale)


def openings(pictures: UInt8Array, mouth: CropRect, interior: Interior) -> Float32Array:
    """Return how far the mouth is open in each picture, (T,) float32, in pixels from top to bottom:
    how many pixels show the inside of the mouth (``interior_mask``) in a column of ``mouth``, the
    mean over its middle columns.

    ``pictures``, (T, H, W, 3) uint8 BGR, show a mouth and what is around it, all in the same place;
    ``mouth`` is the box of the lips in them, in pixels from their top left; ``interior`` has the
    colours by which the inside of the mouth is known.
    """
    middle = slice(mouth.x1 + mouth.width * 3 // 8, mouth.x1 + mouth.width * 5 // 8)
    mask = interior_mask(pictures[:, mouth.y1 : mouth.y2, middle], interior)
    return np.asarray(mask.sum(axis=1).mean(axis=1), np.float32)


def loudness(pcm: Float32Array, frames: int, samples_per_frame: int) -> Float32Array:
    """Return the loudness of each of ``frames`` frames, at least one, (frames,) float32, 0 to 45:
    decibels above a floor, which lies 45 dB (LOUDEST_DB) below the loudest frame.

    ``pcm`` is (samples,) float32, of which ``samples_per_frame`` belong to each frame; where it
    ends earlier there is silence.
    """
    padded = np.zeros(frames * samples_per_frame, np.float32)
    padded[: min(len(pcm), len(padded))] = pcm[: len(padded)]
    power = np.square(padded.reshape(frames, samples_per_frame), dtype=np.float64).mean(axis=1)
    level = 10.0 * np.log10(power + 1e-10)
    return np.asarray(np.maximum(0.0, level - (level.max() - LOUDEST_DB)), np.float32)


def pauses(levels: Float32Array, *, settle: int = 3, least: int = 3) -> list[tuple[int, int]]:
    """Return the spans of frames in which nobody speaks, each (first, one past the last), in order.
    At each end of a span that is next to sound, ``settle`` frames are left out; spans of fewer than
    ``least`` frames are then left out.

    ``levels`` is the loudness of each frame, (T,) float32, T at least 1: 0 to 45, in decibels above
    a floor that lies 45 dB below the loudest frame, as ``loudness`` returns it. Because recordings
    have noise of their own, a frame is quiet where it is at most 6 dB above the 10th percentile of
    ``levels``. Where that percentile is above 25, a frame is quiet up to 3 dB above the floor.
    """
    noise = float(np.percentile(levels, 10))
    threshold = noise + 6.0 if noise <= LOUDEST_DB - 20.0 else 3.0
    quiet = np.concatenate([[False], levels <= threshold, [False]])
    edges = np.flatnonzero(quiet[1:] != quiet[:-1])
    found = []
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        inner = (first + settle if first else 0, end - settle if end < len(levels) else end)
        if inner[1] - inner[0] >= least:
            found.append(inner)
    return found
