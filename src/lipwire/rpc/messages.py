"""Requests read: bytes become arrays, and whatever cannot be served is refused in one line."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AUDIO_WINDOW_SHAPE, MOUTH_PX, Float32Array, InvalidInput

MAX_BATCH: Final = 50
"""Frames in a request: the guide's limit."""

VISUAL_SHAPE: Final = (6, MOUTH_PX, MOUTH_PX)
"""What the network sees of one frame in the guide's form: the crop, and the crop with the mouth
blacked out."""

MAX_RAW_AUDIO_S: Final = 60
MAX_RAW_AUDIO_BYTES: Final = 16 * 1024 * 1024
"""A minute of 48 kHz stereo is 11.5 million."""

_FLOAT: Final = np.dtype("<f4")
_VISUAL_BYTES: Final = 4 * int(np.prod(VISUAL_SHAPE))
_WINDOW_BYTES: Final = 4 * int(np.prod(AUDIO_WINDOW_SHAPE))
_MAX_MODEL_ID: Final = 200
_HIGHEST_RATE_HZ: Final = 768_000
_MAX_CHANNELS: Final = 64

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class RawAudio:
    """16-bit PCM as it came, and which of its 25 frames a second are wanted."""

    samples: npt.NDArray[np.int16]
    """(n, channels) int16, full scale 32768; a read-only view."""
    sample_rate_hz: int
    first_frame: int


def model_id_of(model_id: str) -> str:
    """Raises InvalidInput where it is empty or longer than 200 characters."""
    if not model_id:
        raise InvalidInput("model_id is empty; name an avatar")
    if len(model_id) > _MAX_MODEL_ID:
        raise InvalidInput(
            f"model_id has {len(model_id)} characters; allowed are up to {_MAX_MODEL_ID}"
        )
    return model_id


def revision_of(revision: str) -> str:
    """Empty stands for any. Raises InvalidInput where it is longer than 200 characters."""
    if len(revision) > _MAX_MODEL_ID:
        raise InvalidInput(
            f"revision has {len(revision)} characters; allowed are up to {_MAX_MODEL_ID}"
        )
    return revision


def batch_size_of(count: int, field: str = "batch_size") -> int:
    if not 1 <= count <= MAX_BATCH:
        raise InvalidInput(f"{field} is {count}; allowed are 1 to {MAX_BATCH}")
    return count


def frame_index_of(index: int, field: str = "start_frame_idx") -> int:
    """Past the last frame is fine, frames run back and forth; before the first is not."""
    if index < 0:
        raise InvalidInput(f"{field} is {index}; allowed are 0 and above")
    return index


def windows_of(data: Buffer, count: int, field: str = "audio_features") -> Float32Array:
    """(count, 32, 16, 16) float32, a read-only view; one window given stands for all."""
    seen = len(data)
    if seen not in (_WINDOW_BYTES, count * _WINDOW_BYTES):
        both = "" if count == 1 else f", or one a frame, {count * _WINDOW_BYTES} bytes"
        raise InvalidInput(
            f"{field} is {seen} bytes; allowed are one window of 32 x 16 x 16 float32,"
            f" {_WINDOW_BYTES} bytes{both}"
        )
    windows = np.frombuffer(data, _FLOAT).reshape(-1, *AUDIO_WINDOW_SHAPE)
    _check_finite(windows, field)
    if len(windows) == count:
        return windows
    return np.ascontiguousarray(np.broadcast_to(windows, (count, *AUDIO_WINDOW_SHAPE)))


def visual_of(data: Buffer, count: int) -> Float32Array | None:
    """(count, 6, 320, 320) float32, a read-only view of ``data``; None where there is none."""
    if not len(data):
        return None
    if len(data) != count * _VISUAL_BYTES:
        raise InvalidInput(
            f"visual_frames is {len(data)} bytes; allowed are {count} x 6 x 320 x 320 float32,"
            f" {count * _VISUAL_BYTES} bytes, or none: the avatar's own frames"
        )
    visual = np.frombuffer(data, _FLOAT).reshape(count, *VISUAL_SHAPE)
    _check_finite(visual, "visual_frames")
    return visual


def raw_audio_of(
    data: bytes, *, sample_rate: int, channels: int, first_frame: int
) -> RawAudio | None:
    """None where ``data`` is empty. 0 stands for 16000 Hz and for one channel."""
    if not data:
        return None
    rate_hz, channels = sample_rate or 16_000, channels or 1
    if not 1_000 <= rate_hz <= _HIGHEST_RATE_HZ:
        raise InvalidInput(
            f"sample_rate is {rate_hz}; allowed are 1000 to {_HIGHEST_RATE_HZ}, or 0 for 16000"
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise InvalidInput(f"channels is {channels}; allowed are 1 to {_MAX_CHANNELS}, or 0 for 1")
    if len(data) % (2 * channels):
        raise InvalidInput(
            f"raw_audio is {len(data)} bytes; allowed are whole samples of 16 bits in {channels}"
            f" {'channel' if channels == 1 else 'channels'}: a multiple of {2 * channels}"
        )
    if len(data) > MAX_RAW_AUDIO_BYTES:
        raise InvalidInput(
            f"raw_audio is {len(data)} bytes; allowed are up to {MAX_RAW_AUDIO_BYTES}"
        )
    length_s = len(data) / (2 * channels * rate_hz)
    if length_s > MAX_RAW_AUDIO_S:
        raise InvalidInput(
            f"raw_audio is {length_s:.2f} s long; allowed are up to {MAX_RAW_AUDIO_S} s"
        )
    frame_index_of(first_frame, "audio_start_frame")
    samples = np.frombuffer(data, np.dtype("<i2")).reshape(-1, channels)
    return RawAudio(samples, rate_hz, first_frame)


def _check_finite(values: Float32Array, field: str) -> None:
    # A sum is NaN or infinite where a number is, and costs one pass and no memory; finite numbers
    # that overflow it are told apart by the slow way.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):
            return
    bad = ~np.isfinite(values.reshape(-1))
    if bad.any():
        index = int(bad.argmax())
        raise InvalidInput(
            f"{field} holds {values.reshape(-1)[index]} at number {index}; allowed are finite"
            " numbers"
        )
