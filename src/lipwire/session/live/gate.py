"""Which frames of the audio somebody speaks in, and how much of the mouth is the network's there.

Elsewhere the network would still move the mouth: to the noise of a room, to music, to hum.
"""

from collections import deque
from typing import Final

from lipwire.audio import CHUNK_SAMPLES, SAMPLES_PER_FRAME, VoiceDetector
from lipwire.domain import Float32Array

_OPENS: Final = 0.5
_CLOSES: Final = 0.15
"""Probabilities of speech: above the one it begins, below the other it has ended."""
_BEFORE_FRAMES: Final = 4
_AFTER_FRAMES: Final = 6
"""Frames around speech that belong to it: lips move before the voice is heard, and close behind
it."""


class SpeechGate:
    """Finds the frames (40 ms) of audio in which somebody speaks, while the audio arrives in
    pieces, and gives each frame a weight: 1 where somebody speaks, 0 in silence, noise and music,
    and values between in the few frames where one passes to the other. Push audio, then ask for the
    weights of as many further frames as that audio is enough for: the weight of a frame depends on
    ``lookahead_samples`` from its first sample on. Not for use from several threads at once."""

    def __init__(self, *, crossfade_frames: int, lookahead_samples: int) -> None:
        """The weight of a frame depends on ``lookahead_samples``, at 16 kHz, from its first sample
        on. ``crossfade_frames`` is how many frames lie between weight 0 and weight 1."""
        self._detector = VoiceDetector()
        self._step = 1.0 / (crossfade_frames + 1)
        known = (lookahead_samples - CHUNK_SAMPLES) // SAMPLES_PER_FRAME - 1
        self._before = max(0, min(_BEFORE_FRAMES, known))
        self._spoken: deque[tuple[int, int]] = deque()  # [first, last] sample of each stretch
        self._chunks = 0
        self._speaking = False
        self._weight = 0.0
        self._frames = 0

    def push(self, pcm: Float32Array) -> None:
        """Add ``pcm``, the audio that follows what was pushed before, (n,) float32 at 16 kHz in
        [-1, 1], of any length."""
        for probability in self._detector.push(pcm):
            first = self._chunks * CHUNK_SAMPLES
            self._chunks += 1
            if self._speaking:
                self._speaking = probability >= _CLOSES
            elif probability >= _OPENS:
                self._speaking = True
                self._spoken.append((first, first))
            if self._speaking:
                self._spoken[-1] = (self._spoken[-1][0], first + CHUNK_SAMPLES - 1)

    def weights(self, frames: int) -> list[float]:
        """Return the weights of the next ``frames`` frames, 0 to 1 each: how much of the network's
        mouth they show, the rest being the mouth at rest. The first is of the frame after the last
        one of the call before. All audio that they depend on, ``lookahead_samples`` from each
        frame's first sample on, has to have been pushed; what is missing counts as silence."""
        return [self._next() for _ in range(frames)]

    def _next(self) -> float:
        first = (self._frames - _AFTER_FRAMES) * SAMPLES_PER_FRAME
        last = (self._frames + 1 + self._before) * SAMPLES_PER_FRAME - 1
        self._frames += 1
        while self._spoken and self._spoken[0][1] < first and len(self._spoken) > 1:
            self._spoken.popleft()
        there = any(begin <= last and end >= first for begin, end in self._spoken)
        self._weight = min(1.0, self._weight + self._step if there else self._weight - self._step)
        if self._weight < self._step / 2:  # 0 but for a rounding
            self._weight = 0.0
        return self._weight
