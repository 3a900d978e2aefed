"""Access units of H.264, taken apart and decoded."""

from collections.abc import Iterable

import av
import numpy as np
import numpy.typing as npt

from lipwire.domain import UInt8Array

SEQUENCE_PARAMETERS, PICTURE_PARAMETERS, KEY_SLICE, SLICE = 7, 8, 5, 1
_LIMITED_RANGE = 1


def units_of(data: bytes) -> list[bytes]:
    """The NAL units of ``data``, which has to be Annex B with start codes of 4 bytes alone."""
    nothing, *units = data.split(b"\0\0\0\1")
    assert nothing == b""
    assert units
    assert all(b"\0\0\1" not in unit for unit in units), "a start code of 3 bytes"
    return units


def kinds_of(data: bytes) -> list[int]:
    """The types of its NAL units."""
    return [unit[0] & 31 for unit in units_of(data)]


def decoder() -> av.VideoCodecContext:
    """One that gives each frame as soon as it has it."""
    made = av.CodecContext.create("h264", "r")
    assert isinstance(made, av.VideoCodecContext)
    made.thread_count = 1
    return made


def decoded_planes(access_units: Iterable[bytes]) -> list[UInt8Array]:
    """Their frames as I420. Each has to be there before the next access unit is."""
    decodes, frames = decoder(), []
    for data in access_units:
        (frame,) = decodes.decode(av.Packet(data))
        assert frame.color_range == _LIMITED_RANGE
        assert (frame.colorspace, frame.pict_type == 0) == (1, False)
        frames.append(frame.to_ndarray(format="yuv420p").astype(np.uint8, copy=False))
    assert decodes.decode(None) == [], "nothing was kept back"
    return frames


def pixels_of(planes: UInt8Array) -> UInt8Array:
    """BGR of I420 in limited range by BT.709."""
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.color_range = _LIMITED_RANGE
    shown = frame.to_ndarray(format="bgr24", src_colorspace="ITU709", dst_colorspace="ITU709")
    return shown.astype(np.uint8, copy=False)


def psnr_db(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Peak signal to noise of two pictures."""
    wrong = np.square(one.astype(np.float64) - other).mean()
    return float(10 * np.log10(255.0**2 / max(float(wrong), 1e-9)))
