"""Phone timings -> smooth mouth controls at video frames.

Jaw, lips and tongue glide: each control is the mean of the phones' targets round an instant,
weighted by how firmly each phone holds it and by a bell of time (the dominance model of Cohen and
Massaro, "Modeling coarticulation in synthetic visual speech", 1993, with another bell). Closures
do not glide: lips that nearly touch look wrong, so /p b m/ and /f v/ are plateaus with cosine
flanks, long enough that a frame of 25 a second always falls on one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import FPS, Float32Array, InvalidInput
from lipwire.training.visemes import (
    BITE,
    CONTROLS,
    OPEN,
    POSES,
    PRESS,
    REST,
    ROUND,
    SILENCE,
    STOPS,
    TONGUE,
    WIDE,
    Pose,
    letters,
)

RUNNING_SHARE: Final = 0.85
"""Of the poses' jaw: running speech opens less than a vowel said by itself."""
JAW_S: Final = 0.042
"""Standard deviation of the jaw's bell: heavy as it is, it does not follow every phone."""
LIPS_S: Final = 0.045
TONGUE_S: Final = 0.028
LIPS_LEAD_S: Final = 0.025
"""Lips take a vowel's shape before it sounds."""

PLATEAU_S: Final = 0.044
"""Shortest contact of the lips; a little more than a video frame, so that none is missed."""
FLANK_S: Final = 0.055
RELEASE: Final = 0.65
"""Part of a stop's length after which its lips part."""


@dataclass(frozen=True, slots=True)
class Phone:
    """One sound of a piece of speech, from ``start_s`` to ``end_s`` in seconds: its symbol in IPA,
    or `visemes.SILENCE` for a pause."""

    symbol: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class _Segment:
    letter: str
    pose: Pose
    start_s: float
    end_s: float


def frame_times(count: int) -> npt.NDArray[np.float64]:
    """Return the middles of the frames 0 to ``count`` - 1, 25 a second, in seconds from the
    beginning of the first one: (count,) float64."""
    return (np.arange(count) + 0.5) / FPS


def mouth_track(phones: Sequence[Phone], times_s: npt.ArrayLike) -> Float32Array:
    """Return the mouth controls at the instants ``times_s``, (T,) in seconds: (T, 6) float32 in [0,
    1], in the order of ``visemes.CONTROLS``.

    ``phones`` follow each other in time (gaps are silence); their times and ``times_s`` count from
    the same moment. Before the first and after the last the mouth rests. Raises InvalidInput for a
    phone without a pose or of negative length.
    """
    t = np.asarray(times_s, np.float64)
    segments = list(_segments(phones))
    starts = np.array([s.start_s for s in segments])
    ends = np.array([s.end_s for s in segments])
    poses = [s.pose for s in segments]
    jaw = np.array([p.jaw for p in poses])
    lips = np.array([p.lips for p in poses])
    track = np.zeros((len(t), len(CONTROLS)))

    near = _nearness(t, starts, ends, JAW_S) * jaw
    track[:, OPEN] = RUNNING_SHARE * (near @ [p.open for p in poses]) / near.sum(axis=1)
    near = _nearness(t + LIPS_LEAD_S, starts, ends, LIPS_S) * lips
    total = near.sum(axis=1)
    track[:, WIDE] = near @ [p.wide for p in poses] / total
    track[:, ROUND] = near @ [p.round for p in poses] / total
    near = _nearness(t, starts, ends, TONGUE_S)
    track[:, TONGUE] = near @ [p.tongue for p in poses] / near.sum(axis=1)
    for segment in segments:
        start, end = contact_interval(segment.letter, segment.start_s, segment.end_s)
        for control, height in ((PRESS, segment.pose.press), (BITE, segment.pose.bite)):
            if height > 0:
                np.maximum(
                    track[:, control], height * _plateau(t, start, end), out=track[:, control]
                )
    return np.clip(track, 0, 1).astype(np.float32)


def contact_interval(letter: str, start_s: float, end_s: float) -> tuple[float, float]:
    """Return (start, end) of the contact of the lips, or of lip and teeth, in seconds, for a sound
    from ``start_s`` to ``end_s``.

    ``letter`` is its IPA letter, one of p, b, m, f, v and the like, which is not checked. The
    contact lasts 44 ms at least, so that it may begin before ``start_s`` and end after ``end_s``;
    the contact of a p or b ends when 65 % of the sound are over.
    """
    if letter in STOPS:
        end_s = start_s + RELEASE * (end_s - start_s)
    short = max(0.0, PLATEAU_S - (end_s - start_s)) / 2
    return start_s - short, end_s + short


def closures(phones: Iterable[Phone]) -> list[tuple[float, float]]:
    """Return the intervals (start, end), in seconds, in which /p b m/ close the lips. ``phones``
    are as in `mouth_track`, in the order of time. Raises `InvalidInput` for a phone without a pose
    or of negative length."""
    return [
        contact_interval(s.letter, s.start_s, s.end_s)
        for s in _segments(list(phones))
        if s.pose.press == 1.0
    ]


def _segments(phones: Sequence[Phone]) -> Iterable[_Segment]:
    """Letters with their share of time, silence in the gaps and endless silence at both ends."""
    clock = -math.inf
    for phone in phones:
        if phone.end_s < phone.start_s:
            raise InvalidInput(
                f"phone {phone.symbol!r} ends at {phone.end_s:.3f} s, "
                f"before its start at {phone.start_s:.3f} s"
            )
        if phone.start_s > clock:
            yield _Segment(SILENCE, REST, clock, phone.start_s)
        parts = letters(phone.symbol)
        for k, letter in enumerate(parts):
            length = (phone.end_s - phone.start_s) / len(parts)
            yield _Segment(
                letter,
                POSES[letter],
                phone.start_s + k * length,
                phone.start_s + (k + 1) * length,
            )
        if parts:
            clock = phone.end_s
    yield _Segment(SILENCE, REST, clock, math.inf)


def _nearness(
    t: npt.NDArray[np.float64],
    starts: npt.NDArray[np.float64],
    ends: npt.NDArray[np.float64],
    deviation_s: float,
) -> npt.NDArray[np.float64]:
    """Share of a logistic bell round each instant that falls in each segment, (times, segments)."""
    scale = 2 * deviation_s * math.sqrt(3) / math.pi
    upper = np.tanh((ends[None, :] - t[:, None]) / scale)
    lower = np.tanh((starts[None, :] - t[:, None]) / scale)
    share: npt.NDArray[np.float64] = (upper - lower) / 2
    return share


def _plateau(t: npt.NDArray[np.float64], start_s: float, end_s: float) -> npt.NDArray[np.float64]:
    """1 from start_s to end_s with cosine flanks outside."""
    outside = np.maximum(np.maximum(start_s - t, t - end_s), 0) / FLANK_S
    flank: npt.NDArray[np.float64] = 0.5 + 0.5 * np.cos(np.pi * np.minimum(outside, 1))
    return flank
