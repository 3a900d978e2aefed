"""What the network hears of silence."""

from typing import Final

import numpy as np

from lipwire.audio.encoder import AudioEncoder
from lipwire.audio.pcm import SAMPLES_PER_FRAME
from lipwire.audio.rows import WINDOW_ROWS
from lipwire.audio.windows import extract_windows
from lipwire.domain import Float32Array

_FRAMES: Final = 3 * WINDOW_ROWS
"""In the middle of so many a window reaches neither the beginning nor the end."""


def silence_window(encoder: AudioEncoder) -> Float32Array:
    """Return the audio window of a frame in the middle of long digital silence, (32, 16, 16)
    float32: the numbers from which the network draws the mouth of a frame where nobody speaks.
    ``encoder``, the avatar's audio encoder, makes them.

    All frames that are 8 frames or more from both ends of a silence have the same window, bit for
    bit.
    """
    pcm = np.zeros(_FRAMES * SAMPLES_PER_FRAME, np.float32)
    window: Float32Array = extract_windows(pcm, encoder)[_FRAMES // 2].copy()
    return window
