"""Many channels to one, as people hear them.

Channels are averaged. Where they cancel each other out, as with one cable that was wired the wrong
way round, the average is silent under loud speech. That is measured over the whole recording: where
its power is less than CANCELLED of what channels that have nothing in common would leave, the
loudest channel is taken instead, from beginning to end, so that there is no seam. One silent
channel, speech in the centre of six, and wide music all leave that much or more.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import Float32Array

CANCELLED: Final = 1 / 16
"""12 dB. For two channels of which one is -g times the other it is reached from g = 0.7 to 1.4."""

Columns = Float32Array | npt.NDArray[np.int16]
"""(samples, channels); float32 in [-1, 1], or int16."""


class ChannelLevels:
    """Measures, piece by piece, whether the channels of a sound cancel each other out when
    averaged."""

    def __init__(self, channels: int) -> None:
        self._energies = np.zeros(channels)  # (channels,) float64, sums of squares
        self._average_energy = 0.0
        self.loudest_rms = 0.0  # of one channel in one piece, its mean taken off; full scale is 1.0

    def add(self, columns: Columns) -> None:
        """Measure the next piece of the sound, (samples, channels) int16 or float32."""
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

    def choice(self) -> int | None:
        """Return the index, from 0, of the channel to use in place of the average of all; None
        where the average is right."""
        channels = len(self._energies)
        unrelated = float(self._energies.sum()) / channels**2
        if channels == 1 or self._average_energy >= CANCELLED * unrelated:
            return None
        return int(np.argmax(self._energies))


def heard_columns(columns: Columns) -> Columns:
    """Return the columns of a whole sound, (samples, channels), that are to be averaged.

    These are all of them, or one, (samples, 1), where the average would cancel out.
    """
    if columns.shape[1] == 1:
        return columns
    levels = ChannelLevels(columns.shape[1])
    levels.add(columns)
    choice = levels.choice()
    return columns if choice is None else columns[:, choice : choice + 1]
