"""PCM of any rate and channel count to mono of another rate, in pieces."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soxr

from lipwire.domain import SAMPLE_RATE_HZ, Float32Array, InvalidInput

LOWEST_RATE_HZ: Final = 1_000
HIGHEST_RATE_HZ: Final = 768_000
MAX_CHANNELS: Final = 64
LOUDEST: Final = 8.0
"""Float samples up to here (18 dB over full scale) are taken for loud audio and clipped after
resampling; beyond lies audio in another unit, integers written as floats for example."""

_QUALITY: Final = "HQ"  # 20 bits; VHQ's longer filters would add 20-40 ms to a live stream


class StreamResampler:
    """Resamples PCM that arrives in pieces to mono, of 16 kHz unless told otherwise; the result
    does not depend on the pieces.

    Input has ``rate_hz``, 1,000 to 768,000, and ``channels``, 1 to 64, which are averaged;
    InvalidInput is raised for others. Output has ``to_hz``, which is not checked. To 16 kHz, input
    runs ahead of output by up to 37 ms at 24 and 48 kHz, 40 ms at 22.05 and 44.1 kHz, 116 ms at 8
    kHz, and by nothing at 16 kHz; ``flush`` returns the rest, so that the whole output is
    round(samples * to_hz / rate_hz) long. Not for use from several threads at once.

        resampler = StreamResampler(48_000, channels=2)
        stream.push(resampler.push(piece))  # piece: (n, 2) int16
        stream.push(resampler.flush())
    """

    __slots__ = ("_channels", "_flushed", "_soxr")

    _soxr: "soxr.ResampleStream | None"  # None: the rate is right already

    def __init__(self, rate_hz: int, channels: int = 1, *, to_hz: int = SAMPLE_RATE_HZ) -> None:
        check_rate(rate_hz)
        if not 1 <= channels <= MAX_CHANNELS:
            raise InvalidInput(f"{channels} channels; allowed: 1 to {MAX_CHANNELS}")
        self._channels = channels
        self._flushed = False
        self._soxr = (
            None
            if rate_hz == to_hz
            else soxr.ResampleStream(rate_hz, to_hz, 1, dtype="float32", quality=_QUALITY)
        )

    def reset(self) -> None:
        """Forget everything; the next push begins a new recording."""
        self._flushed = False
        if self._soxr is not None:
            self._soxr.clear()

    def push(self, pcm: Float32Array | npt.NDArray[np.int16]) -> Float32Array:
        """Add samples and return the output that is ready, mono, (k,) float32 in [-1, 1]; k is
        often 0. Output that is louder is clipped.

        ``pcm`` is (n, channels), or (n,) for one channel: int16, or float32 with full scale 1.0.
        Raises InvalidInput for another shape or type, for NaN, infinite or absurdly loud samples
        (over 8.0), and after ``flush``; the stream is then as it was before the call.
        """
        if self._flushed:
            raise InvalidInput("audio pushed after the end of the stream; reset() begins a new one")
        mono = self._mono(pcm)
        return self._resample(mono, last=False) if len(mono) else mono

    def flush(self) -> Float32Array:
        """End the audio and return the last samples, (k,) float32 in [-1, 1]; k may be 0.
        Afterwards only ``reset`` may be called. Raises InvalidInput where ``flush`` was called
        before."""
        if self._flushed:
            raise InvalidInput("the stream was flushed already; reset() begins a new one")
        self._flushed = True
        return self._resample(np.empty(0, np.float32), last=True)

    def _resample(self, mono: Float32Array, *, last: bool) -> Float32Array:
        if self._soxr is not None:
            mono = self._soxr.resample_chunk(mono, last=last)
        return np.clip(mono, np.float32(-1), np.float32(1))

    def _mono(self, pcm: Float32Array | npt.NDArray[np.int16]) -> Float32Array:
        """Channels added one after the other: a sum over an axis may round otherwise for another
        number of samples."""
        columns = pcm[:, None] if pcm.ndim == 1 else pcm
        if columns.ndim != 2 or columns.shape[1] != self._channels:
            shape = "(samples,)" if self._channels == 1 else f"(samples, {self._channels})"
            raise InvalidInput(f"PCM of shape {pcm.shape}; allowed: {shape}")
        if pcm.dtype == np.int16:
            scale = 1.0 / 32768.0
        elif pcm.dtype == np.float32:
            scale = 1.0
            check_samples(columns)
        else:
            raise InvalidInput(f"PCM of type {pcm.dtype}; allowed: int16 or float32")
        total = columns[:, 0].astype(np.float64)
        for channel in range(1, self._channels):
            total += columns[:, channel]
        return (total * (scale / self._channels)).astype(np.float32)


def check_rate(rate_hz: int) -> None:
    """Raise InvalidInput where audio of ``rate_hz`` samples a second cannot be resampled; 1,000 to
    768,000 can."""
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise InvalidInput(
            f"a sample rate of {rate_hz} Hz; allowed: {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ}"
        )


def check_samples(pcm: npt.NDArray[Any]) -> None:
    """Raise InvalidInput where a sample of ``pcm``, floats of any shape with full scale 1.0, is
    NaN, infinite or absurdly loud (above 8.0 or below -8.0)."""
    peak = float(np.max(np.abs(pcm), initial=0.0))  # NaN wins over every other value
    if not peak <= LOUDEST:
        raise InvalidInput(
            f"PCM with a sample of size {peak:g}; allowed: finite numbers, full scale being 1.0 "
            f"and {LOUDEST:g} the most"
        )
