"""Speech as the avatar's network will get it: the finished encoder's windows, with the truth.

This is where the renderer's training begins: a window, the controls that the head reads from it
(which the renderer is given), and the true controls (which the truth is rendered from).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from lipwire.audio import AudioEncoder, extract_windows, frame_count
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array
from lipwire.training.audio_model import AudioHead, load_head
from lipwire.training.coarticulation import Phone, frame_times, mouth_track
from studio.speech.corpus import load_split
from studio.speech.sentences import Split
from studio.speech.utterance import Utterance

PAUSE_S: Final = 0.4
"""Silence put before and after an utterance, in which the mouth is at rest."""


@dataclass(frozen=True, slots=True)
class SpokenWindows:
    """One recording, frame by frame."""

    voice: str
    text: str
    pcm: Float32Array  # (samples,) float32 in [-1, 1] at SAMPLE_RATE_HZ
    phones: tuple[Phone, ...]
    windows: Float32Array  # (frames, 32, 16, 16) float32, read-only
    predicted: Float32Array  # (frames, 6) float32 in [0, 1]: what the head reads
    true: Float32Array  # (frames, 6) float32 in [0, 1]: what the phones say


def read_controls(head: AudioHead, windows: Float32Array) -> Float32Array:
    """(frames, 32, 16, 16) -> (frames, 6) float32 in [0, 1]."""
    made = np.empty((len(windows), 6), np.float32)
    with torch.inference_mode():
        for start in range(0, len(windows), 256):
            part = torch.from_numpy(windows[start : start + 256].copy())
            made[start : start + 256] = head(part).numpy()
    return made


def spoken_windows(
    utterance: Utterance, encoder: AudioEncoder, head: AudioHead, pause_s: float = PAUSE_S
) -> SpokenWindows:
    """The utterance between two pauses, cut into frames."""
    pause = np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.float32)
    pcm = np.concatenate([pause, utterance.pcm.astype(np.float32) / 32768, pause])
    phones = tuple(
        Phone(p.symbol, p.start_s + pause_s, p.end_s + pause_s) for p in utterance.phones
    )
    windows = extract_windows(pcm, encoder)
    return SpokenWindows(
        utterance.voice,
        utterance.text,
        pcm,
        phones,
        windows,
        read_controls(head, windows),
        mouth_track(phones, frame_times(frame_count(len(pcm)))),
    )


def corpus_windows(
    corpus: Path, split: Split, encoder: Path, head: Path, limit: int | None = None
) -> Iterator[SpokenWindows]:
    """A split's utterances through the encoder (ONNX) and the head, in order, one at a time.

    Raises `NotFound` for an empty corpus, `AvatarInvalid` for a broken encoder or head.
    """
    utterances = load_split(corpus, split, limit)
    opened, loaded = AudioEncoder.open(encoder), load_head(head)
    for utterance in utterances:
        yield spoken_windows(utterance, opened, loaded)
