"""Geometry and array shapes of one frame.

The shapes are those of the SyncTalk_2D family (https://github.com/ZiqiaoPeng/SyncTalk_2D).
"""

from dataclasses import dataclass
from typing import Final, Literal

FPS: Final = 25
"""Frames a second of every avatar of this family; the audio windows are cut for it."""

SAMPLE_RATE_HZ: Final = 16_000
"""Rate of the sound that the mel spectrogram is made from: mono, float32 in [-1, 1]."""

CROP_PX: Final = 328
"""The crop rectangle is resized to this square."""

MOUTH_BORDER_PX: Final = 4
"""Pixels of the crop on each side that the network does not see."""

MOUTH_PX: Final = 320
"""Side of what the network sees and makes."""

MASK_ROWS: Final = slice(5, 310)
MASK_COLUMNS: Final = slice(5, 315)
"""Blacked out in the network's channels 3-5. The original passes OpenCV the rectangle (x, y, width,
height) = (5, 5, 310, 305), so columns 5-314 and rows 5-309."""

FEATURE_SIZE: Final = 512
"""Numbers the audio encoder makes from 200 ms of speech."""

AUDIO_WINDOW_SHAPE: Final = (32, 16, 16)
"""One frame's speech: 16 rows of FEATURE_SIZE numbers, reshaped."""

Form = Literal["pixels", "floats"]
"""What a network is given and makes: crops and mouths in uint8, or the floats that the networks of
this family have themselves."""


@dataclass(frozen=True, slots=True)
class CropRect:
    """Where the face is in a frame: the pixels of columns ``x1`` up to but without ``x2``, and of
    rows ``y1`` up to but without ``y2``, both counted from 0 at the top left."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def width(self) -> int:
        """Width of the rectangle in pixels."""
        return self.x2 - self.x1

    @property
    def height(self) -> int:
        """Height of the rectangle in pixels."""
        return self.y2 - self.y1

    def __str__(self) -> str:
        return f"[{self.x1},{self.y1},{self.x2},{self.y2}]"


def ping_pong(index: int, count: int) -> int:
    """Return the frame shown at ``index`` (>= 0) of an endless walk back and forth over ``count``
    frames.

    The ends are shown once each time, so that no frame stands still: 0 1 2 3 2 1 0 1 ...
    """
    if count <= 1:
        return 0
    step = index % (2 * count - 2)
    return step if step < count else 2 * count - 2 - step
