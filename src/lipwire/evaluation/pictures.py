"""The pictures of an evaluation: visemes beside their truth, and the opening over the speech.

Drawn with OpenCV alone, at twice the size and then halved, which smooths lines and letters.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lipwire.domain import FPS, Float32Array, UInt8Array
from lipwire.domain.newfiles import write_file

Colour = tuple[int, int, int]

PAPER: Colour = (252, 250, 248)
INK: Colour = (60, 50, 45)
FAINT: Colour = (150, 142, 136)
WAVE: Colour = (226, 218, 210)
PAUSE: Colour = (242, 238, 234)
TRUTH: Colour = (178, 130, 40)
MADE: Colour = (50, 105, 235)
CLOSURE: Colour = (120, 170, 90)

SCALE = 2
SECONDS_A_ROW = 8.0
ROW_WIDTH, ROW_HEIGHT = 1200, 150
MARGIN = 46


@dataclass(frozen=True, slots=True)
class Track:
    """One row of curves of a chart: the speech, ``pcm``, (samples,) float32, of which
    ``samples_per_frame`` belong to each frame, and how far the mouth was open in each frame.

    ``made`` is the avatar's opening and ``truth`` what it should have been (None where that is not
    known), both (T,) float32. ``pauses``, in which nobody speaks, and ``closures``, in which p, b
    or m close the lips, are spans of frames, (first, one past the last).
    """

    title: str
    pcm: Float32Array
    """(samples,) float32, of which ``samples_per_frame`` belong to each frame."""
    samples_per_frame: int
    made: Float32Array
    """(T,) float32: how far the avatar's mouth was open in each frame."""
    truth: Float32Array | None = None
    """(T,) float32: how far it should have been; None where that is not known."""
    pauses: tuple[tuple[int, int], ...] = ()
    """Spans [first frame, one past the last] in which nobody speaks."""
    closures: tuple[tuple[int, int], ...] = ()
    """Spans [first frame, one past the last] in which p, b or m close the lips."""


def viseme_sheet(
    tiles: Sequence[tuple[str, UInt8Array, UInt8Array]], *, columns: int = 4
) -> UInt8Array:
    """Return one picture, (H, W, 3) uint8 BGR, that shows true and made mouths side by side,
    ``columns`` pairs in a row.

    Each of ``tiles``, of which there is one at least, is (label, truth, made): a text, and two
    pictures, square and all of one size, (S, S, 3) uint8 BGR. The truth is shown on the left.
    """
    side = tiles[0][1].shape[0]
    label, gap = 30, 14
    pair_width, pair_height = 2 * side + 2, side + label
    rows = -(-len(tiles) // columns)
    sheet = np.full(
        (rows * (pair_height + gap) + gap + label, columns * (pair_width + gap) + gap, 3),
        PAPER,
        np.uint8,
    )
    for number, (name, truth, made) in enumerate(tiles):
        x = gap + number % columns * (pair_width + gap)
        y = gap + label + number // columns * (pair_height + gap)
        sheet[y + label : y + label + side, x : x + side] = truth
        sheet[y + label : y + label + side, x + side + 2 : x + pair_width] = made
        _write(sheet, name, (x + 2, y + label - 9), INK, 0.62)
    _write(sheet, "left: rendered truth    right: the network, from speech", (gap, 26), FAINT, 0.5)
    return sheet


def opening_chart(tracks: Sequence[Track]) -> UInt8Array:
    """Return a picture, (H, 1200, 3) uint8 BGR, of how far the mouth is open in each of ``tracks``,
    at least one, drawn over its waveform: a legend, then for each track one row for each eight
    seconds. Openings have one scale in all rows."""
    highest = max(
        float(curve.max(initial=1.0))
        for track in tracks
        for curve in (track.made, track.truth)
        if curve is not None
    )
    rows = [_legend(any(track.truth is not None for track in tracks))]
    for track in tracks:
        frames = len(track.made)
        step = round(SECONDS_A_ROW * FPS)
        rows.extend(
            _row(track, first, min(first + step, frames), step, highest, titled=first == 0)
            for first in range(0, frames, step)
        )
    return np.concatenate(rows)


def _row(
    track: Track, first: int, end: int, step: int, highest: float, *, titled: bool
) -> UInt8Array:
    width, height = ROW_WIDTH * SCALE, (ROW_HEIGHT + (24 if titled else 0)) * SCALE
    top = height - ROW_HEIGHT * SCALE
    row = np.full((height, width, 3), PAPER, np.uint8)
    left, right = MARGIN * SCALE, width - 16 * SCALE
    floor, ceiling = height - 26 * SCALE, top + 8 * SCALE

    def column(frame: float) -> int:
        return round(left + (frame - first) / step * (right - left))

    for spans, colour in ((track.pauses, PAUSE), (track.closures, CLOSURE)):
        for begin, stop in spans:
            begin, stop = max(begin, first), min(stop, end)
            if begin >= stop:
                continue
            if colour == PAUSE:
                cv2.rectangle(row, (column(begin), ceiling), (column(stop), floor), PAUSE, -1)
            else:
                corner = (column(stop), floor + 5 * SCALE)
                cv2.rectangle(row, (column(begin), floor + 2 * SCALE), corner, CLOSURE, -1)
    _wave(row, track, first, end, column, floor, ceiling)
    cv2.line(row, (left, floor), (right, floor), FAINT, 1, cv2.LINE_AA)
    for second in range(-(-first // FPS), end // FPS + 1):
        x = column(second * FPS)
        cv2.line(row, (x, floor), (x, floor + 4 * SCALE), FAINT, 1, cv2.LINE_AA)
        _write(row, f"{second} s", (x - 8 * SCALE, floor + 19 * SCALE), FAINT, 0.4 * SCALE)
    _write(row, f"{highest:.0f} px", (4 * SCALE, ceiling + 10 * SCALE), FAINT, 0.4 * SCALE)
    for curve, colour in ((track.truth, TRUTH), (track.made, MADE)):
        if curve is None:
            continue
        stop = min(end + 1, len(curve))
        points = [
            (column(i + 0.5), floor - (floor - ceiling) * float(curve[i]) / highest)
            for i in range(first, stop)
        ]
        line = np.asarray(points).round().astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(row, [line], False, colour, 2 * SCALE - 1, cv2.LINE_AA)
    if titled:
        _write(row, track.title, (left, 18 * SCALE), INK, 0.52 * SCALE)
    return _halved(row)


def _wave(
    row: UInt8Array,
    track: Track,
    first: int,
    end: int,
    column: Callable[[float], int],
    floor: int,
    ceiling: int,
) -> None:
    """The waveform as a filled band round the middle."""
    speech = track.pcm[first * track.samples_per_frame : end * track.samples_per_frame]
    loudest = float(np.abs(track.pcm).max(initial=1e-6))
    middle, half = (floor + ceiling) / 2, (floor - ceiling) / 2
    left, right = column(first), column(end)
    edges = np.linspace(0, len(speech), right - left + 1).astype(int)
    for x, (begin, stop) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        if begin < stop:
            size = float(np.abs(speech[begin:stop]).max()) / loudest
            reach = round(half * size)
            cv2.line(
                row, (left + x, round(middle) - reach), (left + x, round(middle) + reach), WAVE, 1
            )


def _legend(with_truth: bool) -> UInt8Array:
    row = np.full((34 * SCALE, ROW_WIDTH * SCALE, 3), PAPER, np.uint8)
    entries: list[tuple[Colour, str]] = [(MADE, "opening of the mouth, made from speech")]
    if with_truth:
        entries += [(TRUTH, "rendered truth"), (CLOSURE, "p, b, m")]
    entries += [(WAVE, "speech")]
    x = MARGIN * SCALE
    for colour, text in entries:
        cv2.rectangle(row, (x, 17 * SCALE), (x + 22 * SCALE, 21 * SCALE), colour, -1)
        _write(row, text, (x + 28 * SCALE, 24 * SCALE), INK, 0.45 * SCALE)
        x += (28 + 30 + round(7.4 * len(text))) * SCALE
    return _halved(row)


def _write(
    picture: UInt8Array, text: str, where: tuple[int, int], colour: Colour, size: float
) -> None:
    # OpenCV's letters are ASCII only.
    shown = text.encode("ascii", "replace").decode()
    thickness = 1 if size < 0.8 else 2
    cv2.putText(
        picture, shown, where, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thickness, cv2.LINE_AA
    )


def _halved(picture: UInt8Array) -> UInt8Array:
    size = (picture.shape[1] // SCALE, picture.shape[0] // SCALE)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def write_picture(path: Path, picture: UInt8Array) -> Path:
    """Write ``picture``, (H, W, 3) uint8 BGR, as the PNG file ``path``, whole or not at all, and
    return ``path``. Raises StorageFailed where it cannot be written."""
    write_file(path, cv2.imencode(".png", picture)[1].tobytes())
    return path
