"""Endless training material: utterances strung together, played faster or slower, and recorded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import soxr

from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, InvalidInput
from lipwire.training.coarticulation import Phone, frame_times, mouth_track
from studio.speech import augment
from studio.speech.utterance import Utterance

SAMPLES_PER_FRAME: Final = SAMPLE_RATE_HZ // FPS

SILENT_SHARE: Final = 0.06
"""Part of the mixtures in which nobody speaks: rooms and noise, with the mouth at rest."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """Sound and the mouth that makes it."""

    pcm: Float32Array  # (frames * SAMPLES_PER_FRAME,) float32 in [-1, 1]
    controls: Float32Array  # (frames, 6) float32 in [0, 1]


def resampled(utterance: Utterance, speed: float) -> Utterance:
    """The utterance played ``speed`` times as fast, pitch and formants moving with it."""
    pcm = soxr.resample(utterance.pcm, SAMPLE_RATE_HZ * speed, SAMPLE_RATE_HZ, quality="MQ")
    phones = tuple(Phone(p.symbol, p.start_s / speed, p.end_s / speed) for p in utterance.phones)
    return replace(utterance, pcm=pcm, phones=phones)


def draw(utterances: Sequence[Utterance], frames: int, rng: np.random.Generator) -> Mixture:
    """One mixture of ``frames`` video frames."""
    if not utterances or frames < 1:
        raise InvalidInput(f"{len(utterances)} utterances and {frames} frames; at least 1 of each")
    count = frames * SAMPLES_PER_FRAME
    if rng.random() < SILENT_SHARE:
        return Mixture(_room_tone(count, rng), np.zeros((frames, 6), np.float32))
    pcm, phones = _string(utterances, count, rng)
    babble = None
    if rng.random() < 0.3:
        babble = sum(
            (_string(utterances, count, rng)[0] for _ in range(3)), np.zeros(count, np.float32)
        )
    controls = mouth_track(phones, frame_times(frames))
    return Mixture(augment.record(pcm, babble, rng), controls)


def _string(
    utterances: Sequence[Utterance], count: int, rng: np.random.Generator
) -> tuple[Float32Array, list[Phone]]:
    """Utterances one after the other with pauses, cut to ``count`` samples from a random start.

    Cutting a longer string means that mixtures begin and end within words as often as a live
    stream's windows do.
    """
    speed = float(rng.uniform(0.8, 1.25)) if rng.random() < 0.6 else 1.0
    skip = int(rng.integers(0, 2 * SAMPLE_RATE_HZ)) if rng.random() < 0.5 else 0
    sound = np.zeros(count + skip, np.float32)
    phones: list[Phone] = []
    position = int(rng.uniform(0, 0.6) * SAMPLE_RATE_HZ)
    while position < len(sound):
        piece = utterances[int(rng.integers(len(utterances)))]
        if speed != 1.0:
            piece = resampled(piece, speed)
        wave = piece.pcm[: len(sound) - position].astype(np.float32) / 32768
        level = 10 ** (rng.uniform(-6, 3) / 20)
        sound[position : position + len(wave)] = wave * np.float32(level)
        start_s = (position - skip) / SAMPLE_RATE_HZ
        phones += [Phone(p.symbol, p.start_s + start_s, p.end_s + start_s) for p in piece.phones]
        gap_s = rng.uniform(0.0, 0.3) if rng.random() < 0.6 else rng.uniform(0.3, 1.5)
        # Phones may end a little after the last sample; the next piece begins after both.
        end = max(position + len(piece.pcm), skip + int(phones[-1].end_s * SAMPLE_RATE_HZ) + 1)
        position = end + int(gap_s * SAMPLE_RATE_HZ)
    return sound[skip:], phones


def _room_tone(count: int, rng: np.random.Generator) -> Float32Array:
    """Silence, or noise of any level, alone."""
    if rng.random() < 0.25:
        return np.zeros(count, np.float32)
    kind = augment.NOISE_KINDS[int(rng.integers(len(augment.NOISE_KINDS)))]
    tone = augment.noise(count, kind, rng)
    if rng.random() < 0.5:
        tone = augment.equalise(tone, rng)
    return (tone * np.float32(10 ** (rng.uniform(-70, -15) / 20))).astype(np.float32)
