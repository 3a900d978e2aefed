"""What counts as PCM here, and how many video frames it covers."""

from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, InvalidInput

SAMPLES_PER_FRAME: Final = SAMPLE_RATE_HZ // FPS
"""640: one frame of 25 fps lasts 40 ms."""


def frame_count(samples: int) -> int:
    """Return how many frames of video, 25 a second, cover ``samples`` samples of 16 kHz audio; at
    least 1.

    The last frame may be filled only partly. Raises InvalidInput for a negative number.
    """
    if samples < 0:
        raise InvalidInput(f"an audio length of {samples} samples; allowed: 0 or more")
    return max(1, -(-samples // SAMPLES_PER_FRAME))


def to_int16(pcm: Float32Array) -> npt.NDArray[np.int16]:
    """Return ``pcm``, float32 of any shape, as int16, little endian, of the same shape: multiplied
    by 32768 and rounded to nearest. Values that int16 cannot hold, 1.0 among them, are clipped to
    -32768 or 32767."""
    samples: npt.NDArray[np.int16] = np.rint(pcm * 32768).clip(-32768, 32767).astype("<i2")
    return samples


def from_int16(data: bytes) -> Float32Array:
    """Return ``data``, samples of 16 bits, little endian, without a header, as (n,) float32 in [-1,
    1]. Raises ValueError for an odd number of bytes."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def check_pcm(pcm: Float32Array) -> Float32Array:
    """Return ``pcm`` unchanged if it is (samples,) float32 without NaN or infinity; else raise
    InvalidInput.

    Nothing is converted: int16 and other rates go through ``StreamResampler`` first.
    """
    if not isinstance(pcm, np.ndarray):
        raise InvalidInput(f"PCM given as {type(pcm).__name__}; allowed: a float32 numpy array")
    if pcm.ndim != 1 or pcm.dtype != np.float32:
        raise InvalidInput(
            f"PCM of shape {pcm.shape} and type {pcm.dtype}; allowed: (samples,) float32, "
            f"mono at {SAMPLE_RATE_HZ} Hz"
        )
    if not np.isfinite(pcm).all():
        raise InvalidInput(
            f"PCM with {np.count_nonzero(~np.isfinite(pcm))} samples that are NaN or infinite; "
            "allowed: finite samples in [-1, 1]"
        )
    return pcm
