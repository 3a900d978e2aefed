"""What happens to a voice between a mouth and a recording: noise, rooms, microphones, levels.

All functions take and give (samples,) float32 at `SAMPLE_RATE_HZ`, of the same length, and draw
from the generator they are given.
"""

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from lipwire.audio import MEL_BANDS, mel_filterbank
from lipwire.domain import SAMPLE_RATE_HZ, Float32Array

NoiseKind = Literal["white", "pink", "hum", "rumble"]
NOISE_KINDS: Final[tuple[NoiseKind, ...]] = ("white", "pink", "hum", "rumble")


def noise(count: int, kind: NoiseKind, rng: np.random.Generator) -> Float32Array:
    """Noise of unit power: white; pink (1/f); rumble (1/f^2); hum (mains and its harmonics)."""
    wave: npt.NDArray[np.floating]
    if kind == "hum":
        t = np.arange(count, dtype=np.float32) / SAMPLE_RATE_HZ
        base_hz = float(rng.choice((50.0, 60.0)))
        wave = np.zeros(count, np.float32)
        for k in range(1, 8):
            phase = rng.uniform(0, 2 * np.pi)
            wave += np.float32(rng.uniform(0.2, 1) / k) * np.sin(
                2 * np.pi * base_hz * k * t + phase
            )
    else:
        wave = rng.standard_normal(count, np.float32)
        if kind != "white":
            spectrum = np.fft.rfft(wave)
            hz = np.maximum(np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ), 20.0)
            wave = np.fft.irfft(spectrum / hz ** (0.5 if kind == "pink" else 1.0), count)
    return (wave / max(float(np.sqrt(np.mean(wave**2))), 1e-9)).astype(np.float32)


def add_noise(pcm: Float32Array, background: Float32Array, snr_db: float) -> Float32Array:
    """Add ``background`` so that speech is ``snr_db`` above it, both measured as mean power."""
    speech = max(float(np.sqrt(np.mean(pcm**2))), 1e-5)
    level = max(float(np.sqrt(np.mean(background**2))), 1e-9)
    return (pcm + background * np.float32(speech / level * 10 ** (-snr_db / 20))).astype(np.float32)


def equalise(pcm: Float32Array, rng: np.random.Generator) -> Float32Array:
    """A random microphone: a curve of +-10 dB over the octaves, and often a band limit.

    One in five is a telephone or an old radio (about 300..3400 Hz).
    """
    count = len(pcm)
    hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ)
    octaves = np.log2(np.maximum(hz, 30) / 30)  # 0 .. 8
    curve_db = np.interp(octaves, np.arange(9), rng.normal(0, 4, 9).clip(-10, 10))
    low_hz, high_hz = 0.0, SAMPLE_RATE_HZ / 2
    shape = rng.random()
    if shape < 0.2:
        low_hz, high_hz = rng.uniform(150, 400), rng.uniform(2800, 4500)
    elif shape < 0.5:
        high_hz = rng.uniform(3500, 8000)
    elif shape < 0.65:
        low_hz = rng.uniform(50, 200)
    curve_db -= 36 * np.maximum(np.log2(np.maximum(hz, 1) / high_hz), 0)
    if low_hz > 0:
        curve_db -= 18 * np.maximum(np.log2(low_hz / np.maximum(hz, 1)), 0)
    gain = 10 ** (np.maximum(curve_db, -80) / 20)
    return np.fft.irfft(np.fft.rfft(pcm) * gain, count).astype(np.float32)


def reverberate(pcm: Float32Array, rng: np.random.Generator) -> Float32Array:
    """A room: the voice, and a decaying tail of noise 3..20 dB below it (decay 0.15..0.7 s).

    The direct sound stays where it was.
    """
    decay_s = rng.uniform(0.15, 0.7)
    length = int(decay_s * SAMPLE_RATE_HZ)
    t = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length) * 10 ** (-3 * t / decay_s)  # -60 dB after decay_s
    tail[: int(rng.uniform(0.001, 0.015) * SAMPLE_RATE_HZ)] = 0
    tail *= 10 ** (-rng.uniform(3, 20) / 20) / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
    tail[0] = 1.0
    size = 1 << (len(pcm) + length - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(tail, size), size)
    return wet[: len(pcm)].astype(np.float32)


def warp_bands(mel: Float32Array, factor: float) -> Float32Array:
    """(columns, 80) mel with every frequency ``factor`` times as high: a longer or shorter throat.

    Pitch moves with it, time does not. ("Vocal tract length perturbation", Jaitly and Hinton 2013.)
    """
    peaks_hz = np.argmax(mel_filterbank(), axis=1) * (SAMPLE_RATE_HZ / 800)
    bands = np.arange(MEL_BANDS)
    source = np.interp(peaks_hz / factor, peaks_hz, bands)
    low = np.minimum(source.astype(np.intp), MEL_BANDS - 2)
    share = (source - low).astype(np.float32)
    return np.asarray(mel[:, low] * (1 - share) + mel[:, low + 1] * share, np.float32)


def record(
    pcm: Float32Array, background: Float32Array | None, rng: np.random.Generator
) -> Float32Array:
    """One random recording of a voice: room, microphone, noise, level, now and then clipping.

    ``background`` is other people's speech of the same length, for babble, or None.
    """
    if rng.random() < 0.35:
        pcm = reverberate(pcm, rng)
    if rng.random() < 0.6:
        pcm = equalise(pcm, rng)
    peak = max(float(np.abs(pcm).max()), 1e-4)
    pcm = pcm * np.float32(0.7 / peak)
    if background is not None and rng.random() < 0.15:
        pcm = add_noise(pcm, background, float(rng.uniform(12, 35)))
    if rng.random() < 0.7:
        kind = NOISE_KINDS[int(rng.integers(len(NOISE_KINDS)))]
        snr_db = float(rng.uniform(5, 45))
        pcm = add_noise(pcm, noise(len(pcm), kind, rng), snr_db)
        if rng.random() < 0.3:
            pcm = equalise(pcm, rng)
    pcm = pcm * np.float32(10 ** (rng.uniform(-20, 6) / 20))
    return np.clip(pcm, -1, 1).astype(np.float32)
