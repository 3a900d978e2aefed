"""The figures that an evaluation gives, each a small function of arrays."""

import math

import numpy as np

from lipwire.domain import CropRect, Float32Array, UInt8Array

FAR = 8
"""Frames either way in which an offset between two curves is looked for."""


def psnr_db(squared_error: float) -> float:
    """Return the peak signal to noise ratio, in dB and at most 99, of pixels of 0-255 whose mean
    squared error is ``squared_error``, 0 or above, in squares of levels."""
    return min(99.0, 10.0 * math.log10(255.0**2 / max(squared_error, 1e-9)))


def mean_psnr_db(squared_errors: Float32Array) -> float:
    """Return the mean of the frames' peak signal to noise ratios, in dB and at most 99.

    ``squared_errors`` is each frame's mean squared error of pixels of 0-255, (T,), at least one.
    This is the figure by which videos are compared. A few bad frames weigh less than in the ratio
    of all pixels together (``psnr_db`` of the mean).
    """
    return float(np.mean([psnr_db(float(error)) for error in squared_errors]))


def squared_errors(made: UInt8Array, truth: UInt8Array, box: CropRect) -> Float32Array:
    """Return the mean squared error of each picture inside ``box``, over its pixels and channels,
    (T,) float32, in squares of levels of 0-255.

    ``made`` and ``truth`` are (T, H, W, 3) uint8 in the same order of colours; ``box`` is in their
    pixels.
    """
    part = np.s_[:, box.y1 : box.y2, box.x1 : box.x2]
    difference = made[part].astype(np.float32) - truth[part].astype(np.float32)
    return np.asarray(np.square(difference).mean(axis=(1, 2, 3)), np.float32)


def correlation(one: Float32Array, other: Float32Array) -> float:
    """Return Pearson's correlation of the curves ``one`` and ``other``, (N,) each, -1 to 1; 0 where
    one of them is flat or has fewer than two values."""
    if len(one) < 2 or float(np.std(one)) < 1e-9 or float(np.std(other)) < 1e-9:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def lag_frames(late: list[Float32Array], reference: list[Float32Array]) -> float:
    """Return by how many frames the curves ``late`` run behind ``reference``, to a fraction of a
    frame, -8 to 8; negative where they run ahead.

    Both lists are of one length and have one curve for each sequence, (T,) float32 with a value for
    each frame; of two curves that differ in length the common beginning counts. The correlation of
    all sequences together is taken at each whole offset; a parabola through the highest three gives
    the fraction. Sequences of less than 24 frames are left out; 0 is returned where no sequence is
    left.
    """
    pairs = [
        (curve, against)
        for curve, against in zip(late, reference, strict=True)
        if min(len(curve), len(against)) >= 3 * FAR  # else a few frames decide
    ]
    if not pairs:
        return 0.0
    scores = []
    for shift in range(-FAR, FAR + 1):
        moved, still = [], []
        for curve, against in pairs:
            count = min(len(curve), len(against))
            first, end = max(0, shift), count + min(0, shift)
            moved.append(curve[first:end])
            still.append(against[first - shift : end - shift])
        scores.append(correlation(np.concatenate(moved), np.concatenate(still)))
    peak = int(np.argmax(scores))
    if 0 < peak < 2 * FAR:
        before, top, after = scores[peak - 1 : peak + 2]
        bend = before - 2 * top + after
        if bend < -1e-9:
            return peak - FAR + 0.5 * (before - after) / bend
    return float(peak - FAR)


def seam_levels(frame: UInt8Array, background: UInt8Array, rect: CropRect) -> Float32Array:
    """Return how much more each pixel of the border of ``rect`` differs from its neighbour outside
    in ``frame`` than in ``background``: (N,) float32 in levels of 0-255, the largest of the three
    channels, 0 where it differs no more.

    A seam is such a step between the outermost pixels that were pasted and the pixels beside them.
    Borders on the edge of the frame have nothing beside them and are left out; where all are, the
    result is one 0. ``frame``, with a mouth pasted, and ``background``, without, are (H, W, 3)
    uint8 of one size and order of colours; ``rect`` is in their pixels.
    """
    height, width = frame.shape[:2]
    steps = []
    for pixels in (frame.astype(np.int16), background.astype(np.int16)):
        sides = []
        rows, columns = slice(rect.y1, rect.y2), slice(rect.x1, rect.x2)
        if rect.x1 > 0:
            sides.append(pixels[rows, rect.x1] - pixels[rows, rect.x1 - 1])
        if rect.x2 < width:
            sides.append(pixels[rows, rect.x2 - 1] - pixels[rows, rect.x2])
        if rect.y1 > 0:
            sides.append(pixels[rect.y1, columns] - pixels[rect.y1 - 1, columns])
        if rect.y2 < height:
            sides.append(pixels[rect.y2 - 1, columns] - pixels[rect.y2, columns])
        if not sides:
            return np.zeros(1, np.float32)
        steps.append(np.abs(np.concatenate(sides)).max(axis=1))
    return np.asarray(np.maximum(0, steps[0] - steps[1]), np.float32)


def share_closed(curve: Float32Array, spans: tuple[tuple[int, int], ...], below: float) -> float:
    """Return the share (0 to 1) of ``spans`` in which the mouth's opening falls to ``below`` pixels
    or less at least once; NaN where there are no spans. Spans that begin behind the curve's end are
    left out.

    ``curve`` is the opening in each frame, (T,) in pixels of the crop rectangle; spans are (first
    frame, one past the last).
    """
    inside = [curve[first:end] for first, end in spans if first < min(end, len(curve))]
    return float(np.mean([part.min() <= below for part in inside])) if inside else math.nan


def share_below(openings_px: Float32Array, below: float) -> float:
    """Return the share (0 to 1) of frames whose mouth is open by ``below`` pixels or less; NaN
    where there are no frames. ``openings_px`` is the opening in each frame, (T,) in pixels."""
    return float(np.mean(openings_px <= below)) if len(openings_px) else float("nan")
