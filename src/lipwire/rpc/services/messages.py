"""The fields of requests, checked: bytes become arrays, and for what cannot be served an error says
in one line what is wrong."""

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import (
    AUDIO_WINDOW_SHAPE,
    MOUTH_PX,
    Access,
    AudioWindows,
    Crops,
    Float32Array,
    InvalidInput,
    Revision,
    Service,
    Visual,
)
from lipwire.domain.names import canonical_name, checked_name
from lipwire.domain.versions import parted
from lipwire.rpc.fileformats import HEAD_BYTES, file_kind
from lipwire.rpc.generated.lipwire.v1 import mouths_pb2
from lipwire.serving import RawAudio

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

_MAX_TENANT: Final = 200
_SERVICES: Final[Mapping[int, Service]] = {
    mouths_pb2.SERVICE_UNSPECIFIED: "batch",
    mouths_pb2.SERVICE_LIVE: "live",
    mouths_pb2.SERVICE_BATCH: "batch",
    mouths_pb2.SERVICE_RENDER: "render",
}

Buffer = bytes | memoryview


def model_id_of(model_id: str, access: Access, *, versions: bool = False) -> str:
    """Return ``model_id``, an avatar's name from a request, in its canonical form (Unicode's NFC).
    With ``versions`` it may also be NAME:VERSION, one version of an avatar, which only other
    servers send. Whether there is such an avatar is not looked at. Raises InvalidInput where it is
    empty or longer than 200 characters, or is of a version where it may not be; NotFound where
    ``access``, what the caller may do, does not allow that avatar."""
    if not model_id:
        raise InvalidInput("model_id is empty; name an avatar")
    if len(model_id) > _MAX_MODEL_ID:
        raise InvalidInput(
            f"model_id has {len(model_id)} characters; allowed are up to {_MAX_MODEL_ID}"
        )
    access.check_avatar(model_id)
    if not versions and parted(model_id)[1]:
        checked_name(model_id)
    return canonical_name(model_id)


def revision_of(frames: str, model: str) -> Revision:
    """Return the revision with the hashes ``frames`` and ``model`` of a request, each a text; an
    empty one stands for any. Raises InvalidInput where one is longer than 200 characters."""
    for revision in (frames, model):
        if len(revision) > _MAX_MODEL_ID:
            raise InvalidInput(
                f"revision has {len(revision)} characters; allowed are up to {_MAX_MODEL_ID}"
            )
    return Revision(frames, model)


def service_of(number: int) -> Service:
    """Return the class of work that ``number`` of the protobuf enum ``lipwire.v1.Service`` stands
    for: "live" for 1, "batch" for 2, "render" for 3, and "batch" for 0, a field that was not set.

    Raises InvalidInput for any other number.
    """
    if number not in _SERVICES:
        raise InvalidInput(f"service is {number}; allowed are 0 to {max(_SERVICES)}")
    return _SERVICES[number]


def tenant_of(tenant: str) -> str:
    """Return ``tenant``, the customer's name in a request, as it is. Raises InvalidInput where it
    is longer than 200 characters."""
    if len(tenant) > _MAX_TENANT:
        raise InvalidInput(f"tenant has {len(tenant)} characters; allowed are up to {_MAX_TENANT}")
    return tenant


def crops_of(data: Buffer, count: int) -> Crops | None:
    """Return the crops (the pictures that the network is shown) of ``count`` frames in ``data``,
    (count, 320, 320, 3) uint8, a read-only view, in the colour order that ``data`` has; None where
    ``data`` is empty.

    Raises InvalidInput for another length.
    """
    if not data:
        return None
    shape = (count, MOUTH_PX, MOUTH_PX, 3)
    if len(data) != math.prod(shape):
        raise InvalidInput(
            f"crops have {len(data)} bytes; allowed are {math.prod(shape)} for a count of {count}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def batch_size_of(count: int, field: str = "batch_size") -> int:
    """Return ``count``, how many frames a request is for, if it is 1 to 50, else raise
    InvalidInput; ``field`` names it in the message."""
    if not 1 <= count <= MAX_BATCH:
        raise InvalidInput(f"{field} is {count}; allowed are 1 to {MAX_BATCH}")
    return count


def frame_index_of(index: int, field: str = "start_frame_idx") -> int:
    """Return ``index``, the number of an avatar's frame in a request, if it is 0 or above, else
    raise InvalidInput; ``field`` names it in the message.

    Past the avatar's last frame is allowed: frames run back and forth.
    """
    if index < 0:
        raise InvalidInput(f"{field} is {index}; allowed are 0 and above")
    return index


def windows_of(data: Buffer, count: int, field: str = "audio_features") -> AudioWindows:
    """Return the windows (what the network hears of each frame) in ``data``, float32 in little
    endian, as (count, 32, 16, 16) float32, a read-only view where that is possible.

    ``data`` has ``count`` windows, or one, which stands for all. Raises InvalidInput for another
    length and for NaN or infinity; ``field`` names them in the message.
    """
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


def visual_of(data: Buffer, count: int) -> Visual | None:
    """Return the network's visual input for ``count`` frames in ``data``, float32 in little endian,
    as (count, 6, 320, 320) float32, a read-only view: channels 0 to 2 are the crop, 3 to 5 the crop
    with the mouth black (rows 5 to 309 of columns 5 to 314), in [0, 1]; neither is checked.

    None where ``data`` is empty. Raises InvalidInput for another length and for NaN or infinity.
    """
    if not len(data):
        return None
    if len(data) != count * _VISUAL_BYTES:
        raise InvalidInput(
            f"visual_frames is {len(data)} bytes; allowed are {count} x 6 x 320 x 320 float32,"
            f" {count * _VISUAL_BYTES} bytes, or none: the avatar's own frames"
        )
    visual = np.frombuffer(data, _FLOAT).reshape(count, *VISUAL_SHAPE)
    _check_finite(visual, "visual_frames")
    return visual.view(Visual)


def raw_audio_of(
    data: bytes,
    *,
    sample_rate: int,
    channels: int,
    first_frame: int,
    field: str = "raw_audio",
) -> RawAudio | None:
    """Return the 16-bit little-endian samples in ``data``, with their rate and ``first_frame``, the
    frame that the first sample belongs to; None where ``data`` is empty.

    ``sample_rate`` is in Hz, 1000 to 768000, or 0 for 16000; ``channels`` is 1 to 64, or 0 for 1.
    Raises InvalidInput where a number is out of range, where ``data`` is longer than 60 s or 16 MiB
    or not whole samples, and where it begins as a file does; ``field`` is what the error calls
    ``data``.
    """
    if not data:
        return None
    samples, rate_hz = samples_of(data, sample_rate=sample_rate, channels=channels, field=field)
    if len(data) > MAX_RAW_AUDIO_BYTES:
        raise InvalidInput(f"{field} is {len(data)} bytes; allowed are up to {MAX_RAW_AUDIO_BYTES}")
    length_s = len(samples) / rate_hz
    if length_s > MAX_RAW_AUDIO_S:
        raise InvalidInput(
            f"{field} is {length_s:.2f} s long; allowed are up to {MAX_RAW_AUDIO_S} s"
        )
    frame_index_of(first_frame, "audio_start_frame")
    return RawAudio(samples, rate_hz, first_frame)


def samples_of(
    data: bytes, *, sample_rate: int, channels: int, field: str
) -> tuple[npt.NDArray[np.int16], int]:
    """Return (the 16-bit little-endian samples in ``data``, (n, channels) int16, a read-only view;
    their rate in Hz).

    ``sample_rate`` is in Hz, 1000 to 768000, or 0 for 16000; ``channels`` is 1 to 64, or 0 for 1.
    Raises InvalidInput where a number is out of range, where ``data`` is not whole samples, and
    where it begins as a file does; ``field`` is what the error calls ``data``.
    """
    if kind := file_kind(data[:HEAD_BYTES]):
        raise InvalidInput(
            f"{field} begins as {kind} does; allowed are bare samples of 16 bits, little endian:"
            " decode the file before, as `lipwire client --form audio FILE` does"
        )
    rate_hz, channels = sample_rate or 16_000, channels or 1
    if not 1_000 <= rate_hz <= _HIGHEST_RATE_HZ:
        raise InvalidInput(
            f"sample_rate is {rate_hz}; allowed are 1000 to {_HIGHEST_RATE_HZ}, or 0 for 16000"
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise InvalidInput(f"channels is {channels}; allowed are 1 to {_MAX_CHANNELS}, or 0 for 1")
    if len(data) % (2 * channels):
        raise InvalidInput(
            f"{field} is {len(data)} bytes; allowed are whole samples of 16 bits in {channels}"
            f" {'channel' if channels == 1 else 'channels'}: a multiple of {2 * channels}"
        )
    return np.frombuffer(data, np.dtype("<i2")).reshape(-1, channels), rate_hz


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
