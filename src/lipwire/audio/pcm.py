"""What counts as PCM here, and how many video frames it covers."""

from typing import Final

import numpy as np

from lipwire.domain import FPS, SAMPLE_RATE_HZ, Float32Array, InvalidInput

SAMPLES_PER_FRAME: Final = SAMPLE_RATE_HZ // FPS
"""640: one frame of 25 fps lasts 40 ms."""


def frame_count(samples: int) -> int:
    """Video frames that cover ``samples`` of 16 kHz audio: the last one may be filled partly, and
    there is always at least one."""
    if samples < 0:
        raise InvalidInput(f"an audio length of {samples} samples; allowed: 0 or more")
    return max(1, -(-samples // SAMPLES_PER_FRAME))


def check_pcm(pcm: Float32Array) -> Float32Array:
    """The same array, if it is one-dimensional float32 without NaN or infinity; InvalidInput else.

    Nothing is converted silently: int16 or another rate belongs through StreamResampler.
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
