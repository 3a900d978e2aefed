"""Recordings that are there as numbers: arrays of samples and lists."""

from collections.abc import Generator, Iterator
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from lipwire.audio.recordings.blocks import full_scale
from lipwire.audio.recordings.channels import ChannelLevels, Columns
from lipwire.audio.recordings.recording import Piece
from lipwire.audio.resample import MAX_CHANNELS, StreamResampler
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array, InvalidInput

_ALLOWED: Final = "int16, float32 and float64, floats in [-1, 1]"


class PcmRecording:
    """A ``Recording`` of samples in memory.

    ``samples`` is (samples,) or (samples, channels) of up to 64 channels, int16, or float32 or
    float64 with full scale 1.0 and up to 18 dB more; a list of floats is float64. An array that is
    not copied (int16 and float32 are not) must stay unchanged. ``rate_hz`` is the rate of the
    samples, 1,000 to 768,000. Channels are averaged for the network; where they would cancel each
    other out, one of them is taken. The sound for people has one or two channels, clipped to
    [-1, 1]; more are averaged into one.

    Raises InvalidInput for another shape, type or rate, for no samples, and for NaN, infinite or
    absurdly loud ones. Its methods raise nothing, not even FormChanged or after ``close``.
    """

    def __init__(self, samples: object, rate_hz: int) -> None:
        self._columns = _checked(samples)
        self.rate_hz = rate_hz
        self.warnings: tuple[str, ...] = ()
        self.samples = 0
        self._choice: int | None = None
        levels = ChannelLevels(self._columns.shape[1])
        for heard in self.heard():
            self.samples += len(heard)
        for columns in self._seconds():
            levels.add(columns, rate_hz)
        self.loudest_rms = levels.loudest_rms
        self._choice = levels.choice()
        if not self.samples:
            raise InvalidInput(
                f"audio lasts {len(self._columns)} samples at {rate_hz} Hz; allowed: at least one "
                f"at {SAMPLE_RATE_HZ} Hz"
            )

    @property
    def channels(self) -> int:
        """Channels of the sound for people: 1 or 2. See ``Recording.channels``."""
        count = self._columns.shape[1]
        return count if count <= 2 else 1

    def examine(self) -> None:
        """Do nothing: everything is known of samples in memory."""

    def heard(self) -> Generator[Float32Array]:
        """Yield what the network hears from the beginning, in pieces of about a second: (k,)
        float32 mono at 16 kHz in [-1, 1]. See ``Recording.heard``."""
        choice = self._choice
        resampler = StreamResampler(self.rate_hz, self._columns.shape[1] if choice is None else 1)
        for columns in self._seconds():
            yield resampler.push(columns if choice is None else columns[:, choice])
        yield resampler.flush()

    def pieces(self) -> Generator[Piece]:
        """Yield the recording from its beginning, in pieces of a second, each of which has what the
        network hears (``heard``, (k,) float32 mono at 16 kHz) and the sound for people (``sound``,
        (n, channels) float32 of ``rate_hz``), both in [-1, 1]. Close the iterator where it is not
        exhausted. See ``Recording.pieces``."""
        with closing(self.heard()) as heard:
            for columns in self._seconds():
                sound = full_scale(columns).clip(-1, 1)
                if sound.shape[1] > 2:
                    choice = self._choice
                    one = sound.mean(axis=1) if choice is None else sound[:, choice]
                    sound = one[:, None]
                yield Piece(next(heard), sound)
            yield Piece(next(heard), np.empty((0, self.channels), np.float32))

    def close(self) -> None:
        """Do nothing: there is nothing to close. See ``Recording.close``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def _seconds(self) -> Iterator[Columns]:
        for start in range(0, len(self._columns), self.rate_hz):
            yield self._columns[start : start + self.rate_hz]


def _checked(samples: object) -> Columns:
    """(samples, channels) int16 or float32."""
    try:
        array: npt.NDArray[Any] = np.asarray(samples)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of different lengths
        raise InvalidInput(f"audio that is no array of numbers: {error}") from error
    kind = array.dtype.kind
    if kind == "f":
        with np.errstate(over="ignore"):  # infinite then, and refused
            array = array.astype(np.float32, copy=False)
    elif kind == "i" and array.dtype.itemsize == 2:
        array = array.astype(np.int16, copy=False)
    else:
        seen = type(samples).__name__ if array.ndim == 0 and kind == "O" else array.dtype
        raise InvalidInput(f"audio of type {seen}; allowed: {_ALLOWED}")
    if array.ndim not in (1, 2) or array.size == 0:
        raise InvalidInput(
            f"audio has shape {array.shape}; allowed are (samples,) and (samples, channels), with "
            "at least one sample"
        )
    columns = array[:, None] if array.ndim == 1 else array
    if columns.shape[1] > MAX_CHANNELS:
        raise InvalidInput(
            f"audio has shape {array.shape}, which is {columns.shape[1]} channels; allowed are "
            f"(samples, channels) with 1 to {MAX_CHANNELS} channels"
        )
    return columns
