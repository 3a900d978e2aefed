"""A picture of speech and mouth: waveform, phones, controls, aperture over time."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, UInt8Array
from lipwire.training.coarticulation import Phone
from lipwire.training.visemes import CONTROLS, aperture

PIXELS_PER_SECOND: Final = 240
_STRIP_PX: Final = 90
_WAVE_PX: Final = 120
_MARGIN_PX: Final = 80
_INK = (40, 40, 40)
_FAINT = (215, 215, 215)
_TRUE = (60, 140, 60)  # BGR
_PREDICTED = (40, 40, 220)


def draw_track(
    pcm: Float32Array,
    phones: Sequence[Phone],
    true: Float32Array | None,
    predicted: Float32Array | None = None,
) -> UInt8Array:
    """BGR uint8 picture; ``true`` in green and ``predicted`` in red are (frames, 6) each."""
    width = _MARGIN_PX + int(len(pcm) / SAMPLE_RATE_HZ * PIXELS_PER_SECOND) + 10
    names = (*CONTROLS, "aperture")
    height = _WAVE_PX + len(names) * _STRIP_PX
    picture = np.full((height, width, 3), 255, np.uint8)
    for second in range(int(len(pcm) / SAMPLE_RATE_HZ) + 1):
        x = _MARGIN_PX + second * PIXELS_PER_SECOND
        cv2.line(picture, (x, 0), (x, height), _FAINT, 1)
    _draw_wave(picture, pcm)
    for phone in phones:
        x = _MARGIN_PX + int(phone.start_s * PIXELS_PER_SECOND)
        if 0 <= x < width:
            cv2.line(picture, (x, 20), (x, height), _FAINT, 1)
            _write(picture, _plain(phone.symbol), x + 1, 14)
    for k, name in enumerate(names):
        base = _WAVE_PX + (k + 1) * _STRIP_PX - 6
        cv2.line(picture, (_MARGIN_PX, base), (width, base), _INK, 1)
        cv2.line(picture, (0, base - 78), (width, base - 78), _FAINT, 1)
        _write(picture, name, 6, base - 30)
        for track, colour in ((true, _TRUE), (predicted, _PREDICTED)):
            if track is not None:
                curve = aperture(track) if name == "aperture" else track[:, k]
                times = (np.arange(len(curve)) + 0.5) / FPS
                across = _MARGIN_PX + times * PIXELS_PER_SECOND
                line = np.stack([across, base - 78 * curve], axis=1).round().astype(np.int32)
                cv2.polylines(picture, [line], False, colour, 1, cv2.LINE_AA)
                for point in line:
                    cv2.circle(picture, (int(point[0]), int(point[1])), 2, colour, -1)
    return picture


def _draw_wave(picture: UInt8Array, pcm: Float32Array) -> None:
    step = SAMPLE_RATE_HZ / PIXELS_PER_SECOND
    middle, scale = 20 + (_WAVE_PX - 20) // 2, (_WAVE_PX - 30) / 2 / max(1e-4, np.abs(pcm).max())
    for k in range(int(len(pcm) / step)):
        piece = pcm[int(k * step) : int((k + 1) * step)]
        top, bottom = middle - piece.max() * scale, middle - piece.min() * scale
        x = _MARGIN_PX + k
        cv2.line(picture, (x, int(top)), (x, int(bottom)), _INK, 1)


def _write(picture: UInt8Array, text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)


_LETTERS: Final = {
    "ɑ": "aa", "ɔ": "ao", "æ": "ae", "ʌ": "ah", "ə": "@", "ɛ": "eh", "ɪ": "ih", "ʊ": "uh",
    "ʃ": "sh", "ʒ": "zh", "θ": "th", "ð": "dh", "ŋ": "ng", "ɹ": "r", "ɡ": "g", "ɝ": "er",
    "ɜ": "er", "ɚ": "er", "ɾ": "dx", "ɐ": "a2", "ː": ":", "": "_",
}  # fmt: skip


def _plain(symbol: str) -> str:
    """OpenCV's font has ASCII only."""
    if not symbol:
        return "_"
    return "".join(_LETTERS.get(letter, letter if letter.isascii() else "?") for letter in symbol)


def stack(pictures: Sequence[npt.NDArray[np.uint8]]) -> UInt8Array:
    """One below the other on white."""
    width = max(p.shape[1] for p in pictures)
    padded = [
        cv2.copyMakeBorder(
            p, 0, 12, 0, width - p.shape[1], cv2.BORDER_CONSTANT, value=(255, 255, 255)
        )
        for p in pictures
    ]
    return np.asarray(np.concatenate(padded), np.uint8)
