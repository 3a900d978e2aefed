"""The mel spectrogram of the SyncTalk_2D family: 80 columns a second, 80 bands a column.

Pre-emphasis 0.97; short-time Fourier transform of 800 samples every 200, periodic Hann window,
centred, with zeros past both ends; magnitude; 80 Slaney bands from 55 to 7600 Hz; decibels with a
floor of 1e-5, less 20; then [-100, 0] dB scaled to [-4, 4] and clipped. It equals
``librosa.feature``'s within 1e-4 (the tests compare the two).

**Bits.** A column has the same bits however the audio was cut into pieces. That rules out a matrix
product for the filter bank: BLAS picks its kernel, and so its order of summation, by the number of
columns. Each band is instead summed bin by bin over all columns at once, with multiplications and
additions that IEEE 754 rounds alike everywhere; the Fourier transform works row by row.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.audio.pcm import check_pcm
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array, InvalidInput

Float64Array = npt.NDArray[np.float64]

FFT_SIZE: Final = 800
HOP: Final = 200
MEL_BANDS: Final = 80
COLUMNS_PER_SECOND: Final = SAMPLE_RATE_HZ // HOP

_PRE_EMPHASIS: Final = 0.97
_LOWEST_HZ: Final = 55.0
_HIGHEST_HZ: Final = 7600.0
_FLOOR: Final = 1e-5
_BLOCK_COLUMNS: Final = 128  # working set of about 2 MB
_FEW_COLUMNS: Final = 4
_STEP_SAMPLES: Final = 16 * SAMPLE_RATE_HZ  # bounds the float64 copy of what is pushed at once


def column_count(samples: int) -> int:
    """Return how many columns the mel spectrogram of a recording of ``samples`` samples at 16 kHz
    has: 1 + ``samples`` // 200. Column c is centred on sample 200 * c."""
    return 1 + samples // HOP


def _hz_to_mel(hz: Float64Array) -> Float64Array:
    """Slaney's scale (Auditory Toolbox, 1998): linear to 1 kHz, then 27 steps to a factor 6.4."""
    linear = hz / (200.0 / 3.0)
    logarithmic = 15.0 + 27.0 * np.log(np.maximum(hz, 1.0) / 1000.0) / np.log(6.4)
    return np.where(hz < 1000.0, linear, logarithmic)


def _mel_to_hz(mel: Float64Array) -> Float64Array:
    linear = mel * (200.0 / 3.0)
    exponential = 1000.0 * np.exp(np.log(6.4) * (mel - 15.0) / 27.0)
    return np.where(mel < 15.0, linear, exponential)


def mel_filterbank() -> Float64Array:
    """Return the weight of each of the 401 bins of a Fourier transform (of 800 samples at 16 kHz)
    in each of the 80 mel bands, (80, 401) float64: triangles of area 1 in Hz, 55 to 7600 Hz, on
    Slaney's mel scale."""
    ends = _hz_to_mel(np.array([_LOWEST_HZ, _HIGHEST_HZ]))
    edges_hz = _mel_to_hz(np.linspace(ends[0], ends[1], MEL_BANDS + 2))
    bins_hz = np.arange(FFT_SIZE // 2 + 1) * (SAMPLE_RATE_HZ / FFT_SIZE)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (high - low))


_BANK: Final = mel_filterbank()
_HANN: Final = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(FFT_SIZE) / FFT_SIZE)

# The filter bank by distance from each band's first bin: (27, 80) bins, and their weights, which
# are zero past the band's last bin. Low bands hold two bins and the highest 27, so _STARTS gives
# for each distance the lowest band that still has a bin there.
_WIDTHS: Final = np.count_nonzero(_BANK, axis=1)
_STEPS: Final = np.arange(_WIDTHS.max())[:, None]
_BINS: Final = np.minimum(np.argmax(_BANK > 0, axis=1) + _STEPS, FFT_SIZE // 2)
_WEIGHTS: Final = np.where(_STEPS < _WIDTHS, _BANK[np.arange(MEL_BANDS), _BINS], 0.0)[:, :, None]
_STARTS: Final = [int(start) for start in np.argmax(_STEPS < _WIDTHS, axis=1)]


def _sum_many(bins: Float64Array) -> Float64Array:
    """(401, k) magnitudes -> (80, k) bands, each summed from its lowest bin up."""
    bands: Float64Array = np.zeros((MEL_BANDS, bins.shape[1]))
    for start, band_bins, weights in zip(_STARTS, _BINS, _WEIGHTS, strict=True):
        bands[start:] += bins[band_bins[start:]] * weights[start:]
    return bands


def _sum_few(bins: Float64Array) -> Float64Array:
    """The same sums in the same order (``accumulate`` promises it, ``sum`` does not) by three calls
    instead of eighty: twice as fast for the two or three columns of a piece of live audio."""
    bands: Float64Array = np.add.accumulate(bins[_BINS] * _WEIGHTS, axis=0)[-1]
    return bands


def _columns(segments: Float64Array) -> Float32Array:
    """(k, 800) float64 pre-emphasised audio -> (k, 80) float32 in [-4, 4]."""
    spectrum = np.fft.rfft(segments * _HANN, axis=-1)
    magnitude = np.sqrt(np.square(spectrum.real) + np.square(spectrum.imag))
    bins = np.ascontiguousarray(magnitude.T)  # (401, k): a band's bin is a contiguous row
    bands = _sum_few(bins) if len(segments) <= _FEW_COLUMNS else _sum_many(bins)
    level_db = 20.0 * np.log10(np.maximum(bands, _FLOOR)) - 20.0
    scaled = np.clip(8.0 * ((level_db + 100.0) / 100.0) - 4.0, -4.0, 4.0)
    return np.ascontiguousarray(scaled.T, dtype=np.float32)


class MelStream:
    """The mel spectrogram of audio that arrives in pieces: all columns together are those of
    ``mel_spectrogram``, bit for bit.

    A column is returned as soon as the last of its 800 samples is in, 400 samples (25 ms) past its
    centre. Between calls less than 1000 samples are held. Not for use from several threads at once.
    """

    __slots__ = ("_flushed", "_pending", "_previous")

    _pending: Float64Array
    _previous: float
    _flushed: bool

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all audio, also after ``flush``; the next ``push`` begins a new recording."""
        self._pending = np.zeros(FFT_SIZE // 2)
        self._previous = 0.0
        self._flushed = False

    def push(self, pcm: Float32Array) -> Float32Array:
        """Add audio and return the columns that are complete now.

        ``pcm`` is (n,) float32 mono at 16 kHz in [-1, 1], n 0 or more. Returns (k, 80) float32 in
        [-4, 4], where k is often 0. Raises InvalidInput for another shape or type, for NaN or
        infinite samples, and after ``flush``; the stream is then as it was before the call.
        """
        if self._flushed:
            raise InvalidInput("audio pushed after the end of the stream; reset() begins a new one")
        check_pcm(pcm)
        columns = [
            self._advance(pcm[start : start + _STEP_SAMPLES])
            for start in range(0, len(pcm), _STEP_SAMPLES)
        ]
        if len(columns) == 1:
            return columns[0]
        return np.concatenate(columns) if columns else np.empty((0, MEL_BANDS), np.float32)

    def flush(self) -> Float32Array:
        """End the audio and return the last columns of its mel spectrogram, (k, 80) float32 in [-4,
        4]; k may be 0. The audio is taken to be followed by silence. Afterwards only ``reset`` may
        be called. Raises InvalidInput where ``flush`` was called before."""
        if self._flushed:
            raise InvalidInput("the stream was flushed already; reset() begins a new one")
        self._flushed = True
        self._pending = np.concatenate([self._pending, np.zeros(FFT_SIZE // 2)])
        return self._complete()

    def _advance(self, pcm: Float32Array) -> Float32Array:
        samples = pcm.astype(np.float64)
        delayed = np.empty_like(samples)
        delayed[0] = self._previous
        delayed[1:] = samples[:-1]
        self._previous = float(samples[-1])
        self._pending = np.concatenate([self._pending, samples - _PRE_EMPHASIS * delayed])
        return self._complete()

    def _complete(self) -> Float32Array:
        count = max(0, (len(self._pending) - FFT_SIZE) // HOP + 1)
        columns = np.empty((count, MEL_BANDS), np.float32)
        if count:
            item_bytes = self._pending.itemsize
            segments: Float64Array = np.ndarray(
                (count, FFT_SIZE), np.float64, self._pending, 0, (HOP * item_bytes, item_bytes)
            )
            for start in range(0, count, _BLOCK_COLUMNS):
                block = segments[start : start + _BLOCK_COLUMNS]
                columns[start : start + len(block)] = _columns(block)
            self._pending = self._pending[count * HOP :].copy()
        return columns


def mel_spectrogram(pcm: Float32Array) -> Float32Array:
    """Return the mel spectrogram of a whole recording.

    ``pcm`` is (samples,) float32 mono at 16 kHz. Returns (1 + samples // 200, 80) float32 in [-4,
    4]. Raises InvalidInput for another shape or type and for NaN or infinite samples.
    """
    stream = MelStream()
    return np.concatenate([stream.push(pcm), stream.flush()])
