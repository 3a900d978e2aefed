"""Decoded frames of audio as arrays, and silent frames.

PyAV's own ``AudioFrame.planes``, ``to_ndarray`` and ``from_ndarray`` look for a null pointer behind
the last of a frame's planes, where FFmpeg puts none from eight planes on: they read memory that is
no sound, or end the process. Here planes are counted by the channels.
"""

from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from av.audio.plane import AudioPlane

from lipwire.domain import InvalidInput

_DTYPES: Final = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
"""Formats of samples by FFmpeg's names (libavutil/samplefmt.h); those in planes end with p."""


def samples_of(frame: av.AudioFrame) -> npt.NDArray[Any]:
    """Return the samples of ``frame``, in the type and scale of the frame, one row for each plane.

    The result is (channels, samples) where the channels lie in planes (``frame.format.is_planar``),
    and (1, samples * channels) where they lie side by side. Types are uint8, int16, int32, int64,
    float32 and float64. Raises InvalidInput for samples of an unknown format.
    """
    dtype = _dtype(frame)
    count = frame.samples if frame.format.is_planar else frame.samples * frame.layout.nb_channels
    return np.vstack([np.frombuffer(plane, dtype, count) for plane in _planes(frame)])


def silent_frame(like: av.AudioFrame, samples: int) -> av.AudioFrame:
    """Return a frame of ``samples`` samples of silence in the form of ``like``: its rate, channels
    and format, without a time. Raises InvalidInput for samples of an unknown format."""
    middle = 128 if like.format.name.startswith("u8") else 0  # of unsigned samples
    count = samples if like.format.is_planar else samples * like.layout.nb_channels
    silence = np.full(count, middle, _dtype(like)).tobytes()
    frame = av.AudioFrame(like.format, like.layout, samples)
    for plane in _planes(frame):
        plane.update(silence)
    frame.sample_rate = like.sample_rate
    return frame


def _planes(frame: av.AudioFrame) -> list[Any]:  # NumPy's stubs know no AudioPlane
    count = frame.layout.nb_channels if frame.format.is_planar else 1
    return [AudioPlane(frame, index) for index in range(count)]


def _dtype(frame: av.AudioFrame) -> "np.dtype[Any]":
    name = frame.format.name
    if (kind := name.removesuffix("p")) not in _DTYPES:
        raise InvalidInput(f"samples of the unknown format {name}")
    return np.dtype(_DTYPES[kind])
