"""Many channels to one, as people hear them.

Channels are averaged. Where they cancel each other out, as with one cable that was wired the wrong
way round, the average is silent under loud speech. Then one channel is taken instead, from
beginning to end, so that there is no seam. Two measures tell:

- The average of the whole recording, whose power is less than CANCELLED of what channels that have
  nothing in common would leave. One silent channel, speech in the centre of six, and wide music all
  leave that much or more.
- Every second of the recording that is loud, in the band of speech, where neither hum nor hiss
  hides what is missing. The average is deaf in a second in which less than DEAF of that power is
  left, and so is a channel that has less. A channel that is deaf in fewer seconds is better.

Of the channels that are deaf least it is the loudest.
"""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array

CANCELLED: Final = 1 / 16
"""12 dB. For two channels of which one is -g times the other it is reached from g = 0.7 to 1.4."""
DEAF: Final = 1 / 8
"""9 dB: noise in each of two inverted channels, 9 dB below the speech, leaves as much."""

_LOUD_RMS: Final = 0.01  # in the band, of a channel; speech is loud, and rooms are not
_BAND_HZ: Final = (100, 3800)  # above hum, below most of the hiss
_BAND_RATE_HZ: Final = 8000  # at least; two and more samples are averaged down to it
_LEAST_S: Final = 0.25  # a shorter piece says little

Columns = Float32Array | npt.NDArray[np.int16]
"""(samples, channels); float32 in [-1, 1], or int16."""


class ChannelLevels:
    """Measures, piece by piece, whether the ``channels`` channels of a sound cancel each other out
    when averaged. ``loudest_rms`` is the root mean square of the loudest channel in the loudest
    piece so far; full scale is 1.0. Not thread-safe."""

    def __init__(self, channels: int) -> None:
        self._energies = np.zeros(channels)  # (channels,) float64, sums of squares
        self._average_energy = 0.0
        self._deaf_s = np.zeros(channels)  # (channels,) float64: seconds in which each is deaf
        self._average_deaf_s = 0.0
        self.loudest_rms = 0.0  # of one channel in one piece, its mean taken off; full scale is 1.0

    def add(self, columns: Columns, rate_hz: int) -> None:
        """Measure ``columns``, the next piece of the sound, preferably a second long: (samples,
        channels) int16, or float32 with full scale 1.0, of ``rate_hz`` samples a second."""
        if not len(columns):
            return
        # (channels, samples) float32: a sum over rows of memory is the fast one.
        rows = np.ascontiguousarray(columns.T, np.float32)
        if columns.dtype == np.int16:
            rows *= np.float32(1 / 32768)
        energies = np.array([float(np.dot(row, row)) for row in rows])
        powers = energies / len(columns) - rows.mean(axis=1, dtype=np.float64) ** 2
        self.loudest_rms = max(self.loudest_rms, float(np.sqrt(max(0.0, powers.max()))))
        self._energies += energies
        if len(rows) > 1:
            average = rows.sum(axis=0)
            self._average_energy += float(np.dot(average, average)) / len(rows) ** 2
            self._add_seconds(rows, rate_hz)

    def choice(self) -> int | None:
        """Return the index, from 0, of the channel to use in place of the average of all channels,
        judging by what was added so far; None where the average is right."""
        channels = len(self._energies)
        unrelated = float(self._energies.sum()) / channels**2
        cancelled = self._average_energy < CANCELLED * unrelated
        least_deaf_s = float(self._deaf_s.min())
        if channels == 1 or not (cancelled or self._average_deaf_s > least_deaf_s):
            return None
        return int(np.argmax(np.where(self._deaf_s > least_deaf_s, -1.0, self._energies)))

    def _add_seconds(self, rows: Float32Array, rate_hz: int) -> None:
        step = max(1, rate_hz // _BAND_RATE_HZ)
        count = rows.shape[1] // step * step
        low = rows[:, :count:step].copy()
        for offset in range(1, step):
            low += rows[:, offset:count:step]
        low *= np.float32(1 / step)
        second = max(1, rate_hz // step)
        for start in range(0, low.shape[1], second):
            piece = low[:, start : start + second]
            if piece.shape[1] >= _LEAST_S * second:
                self._add_second(piece, second)

    def _add_second(self, piece: Float32Array, rate_hz: int) -> None:
        """Of ``piece``, (channels, samples), at most a second, what is in the band."""
        channels, count = piece.shape
        window = _window(count)
        energy = float(np.dot(window, window))
        if not energy:  # of two samples or fewer: nothing of them is in the band
            return
        spectrum = np.fft.rfft(piece * window, axis=1)
        low, high = (round(hz * count / rate_hz) for hz in _BAND_HZ)
        band = spectrum[:, low : high + 1]
        scale = 2 / (count * energy)
        powers = scale * (band.real**2 + band.imag**2).sum(axis=1)  # (channels,), mean squares
        if not powers.max() >= _LOUD_RMS**2:
            return
        together = band.sum(axis=0)
        average = scale * float((together.real**2 + together.imag**2).sum()) / channels**2
        least = DEAF * float(powers.sum()) / channels**2
        self._deaf_s += (powers < least) * (count / rate_hz)
        self._average_deaf_s += (average < least) * (count / rate_hz)


@lru_cache(maxsize=8)
def _window(samples: int) -> Float32Array:
    window: Float32Array = np.hanning(samples).astype(np.float32)
    return window


def heard_columns(columns: Columns, rate_hz: int) -> Columns:
    """Return the channels of a whole sound that are to be averaged: ``columns`` itself, or one
    channel of it, (samples, 1), where the average would cancel out.

    ``columns`` is (samples, channels) int16, or float32 with full scale 1.0, of ``rate_hz`` samples
    a second.
    """
    if columns.shape[1] == 1:
        return columns
    levels = ChannelLevels(columns.shape[1])
    levels.add(columns, rate_hz)
    choice = levels.choice()
    return columns if choice is None else columns[:, choice : choice + 1]
