"""Sound on its way into a video file: resampled where AAC wants it, and cut into its frames."""

from collections import deque
from collections.abc import Iterator
from typing import Final

import numpy as np
import soxr

from lipwire.domain import Float32Array, InvalidInput

_AAC_RATES_HZ: Final = frozenset(
    (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
)
"""Rates that AAC knows (ISO/IEC 14496-3, 1.6.3.4); audio of another is resampled."""
_RESAMPLED_HZ: Final = 48_000
_AAC_FRAME_SAMPLES: Final = 1024
_AAC_BITS_A_SECOND: Final = 128_000
_AAC_BITS_A_FRAME: Final = 6144
"""The most that AAC may spend on 1024 samples of one channel (ISO/IEC 14496-3, 4.5.3.1)."""


class AacQueue:
    """A queue of sound that waits to be encoded, cut into the frames of 1024 samples that AAC
    takes. ``rate_hz`` is the rate of the sound that ``take`` yields: the rate of the input, or
    48,000 where AAC does not support that. ``layout`` ("mono" or "stereo") and ``bits_a_second``
    are settings for the encoder. There is no limit to what may wait. Not thread-safe."""

    def __init__(self, rate_hz: int, channels: int) -> None:
        """The sound that ``push`` is given has ``rate_hz`` samples a second, which is not checked,
        and ``channels`` channels, 1 or 2."""
        self._channels = channels
        self._resampler: soxr.ResampleStream | None = None
        self.rate_hz = rate_hz
        if rate_hz not in _AAC_RATES_HZ:
            self.rate_hz = _RESAMPLED_HZ
            self._resampler = soxr.ResampleStream(rate_hz, _RESAMPLED_HZ, channels, dtype="float32")
        self.layout = "mono" if channels == 1 else "stereo"
        most = _AAC_BITS_A_FRAME * self.rate_hz // _AAC_FRAME_SAMPLES
        self.bits_a_second = channels * min(_AAC_BITS_A_SECOND, most)
        self._waiting: deque[Float32Array] = deque()  # each (samples, channels)
        self._waiting_samples = 0
        self._taken_samples = 0

    def push(self, pcm: Float32Array) -> None:
        """Add ``pcm``, the sound that follows: (samples, channels) float32, or (samples,) for one
        channel, in [-1, 1]; what is louder is clipped by ``take``. The array is not copied, and
        must not be changed until it was taken. Raises InvalidInput for another shape or type, and
        for samples that are not finite."""
        shaped = pcm[:, None] if pcm.ndim == 1 else pcm
        if shaped.ndim != 2 or shaped.shape[1] != self._channels or pcm.dtype != np.float32:
            raise InvalidInput(
                f"audio is {pcm.dtype} of shape {pcm.shape}, "
                f"allowed is float32 of shape (samples, {self._channels})"
            )
        if not np.isfinite(shaped).all():
            raise InvalidInput("audio holds samples that are not finite numbers (NaN or infinity)")
        if self._resampler is not None:
            shaped = self._resampler.resample_chunk(shaped)
        self._append(shaped)

    def take(self, limit: int | None) -> Iterator[tuple[int, Float32Array]]:
        """Take waiting sound out of the queue and yield it in whole AAC frames, of 1024 samples,
        that begin before sample number ``limit``. With None the sound has ended: everything that is
        left is yielded, the last frame perhaps shorter, and ``push`` may not be called any more.

        Each is (number of its first sample, (channels, samples) float32 in [-1, 1]). Samples are
        numbered from 0 at the ``rate_hz`` of this queue. With a ``limit``, the iterator ends when
        less than a whole frame waits.
        """
        if limit is None and self._resampler is not None:
            self._append(self._resampler.resample_chunk(_nothing(self._channels), last=True))
            self._resampler = None
        while self._waiting_samples >= (1 if limit is None else _AAC_FRAME_SAMPLES):
            if limit is not None and self._taken_samples >= limit:
                return
            start = self._taken_samples
            yield start, np.clip(self._next(_AAC_FRAME_SAMPLES).T, -1.0, 1.0, order="C")

    def _append(self, samples: Float32Array) -> None:
        if len(samples):
            self._waiting.append(samples)
            self._waiting_samples += len(samples)

    def _next(self, count: int) -> Float32Array:
        """The next ``count`` samples, or all where fewer wait: (samples, channels)."""
        pieces: list[Float32Array] = []
        missing = min(count, self._waiting_samples)
        self._waiting_samples -= missing
        self._taken_samples += missing
        while missing:
            head = self._waiting.popleft()
            pieces.append(head[:missing])
            if len(head) > missing:
                self._waiting.appendleft(head[missing:])
            missing -= len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _nothing(channels: int) -> Float32Array:
    return np.empty((0, channels), np.float32)
