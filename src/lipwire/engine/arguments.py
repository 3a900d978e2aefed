"""What kernels are given, as the files in ``kernels`` declare it."""

import ctypes
from typing import Final

NO_BIAS: Final = 0xFFFFFFFF
"""The place of a bias that is not there."""


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class Places(ctypes.Structure):
    """Of weights and biases in an image, in bytes."""

    _fields_ = _fields(
        ctypes.c_uint32,
        "expand expand_bias depthwise depthwise_bias project project_bias mouth mouth_bias",
    )


class BlockArguments(ctypes.Structure):
    _fields_ = [
        *_fields(ctypes.c_uint64, "weights first second out"),
        *_fields(
            ctypes.c_int32,
            "height width mask_top mask_bottom mask_left mask_right tiles_down tiles_each",
        ),
        ("at", Places),
    ]


class LayerArguments(ctypes.Structure):
    _fields_ = [
        *_fields(ctypes.c_uint64, "weights first second residual out"),
        *_fields(
            ctypes.c_int32,
            "in_height in_width height width channels_1 channels_2 depth outputs relu tiles_across",
        ),
        *_fields(ctypes.c_uint32, "weight bias depthwise depthwise_bias"),
    ]


class SpeechArguments(ctypes.Structure):
    _fields_ = [
        *_fields(ctypes.c_uint64, "speech out"),
        *_fields(ctypes.c_int32, "channels height width reserved"),
    ]


class DoubledArguments(ctypes.Structure):
    _fields_ = [
        *_fields(ctypes.c_uint64, "small out"),
        *_fields(ctypes.c_int32, "height width channels reserved"),
    ]


class NeighboursArguments(ctypes.Structure):
    _fields_ = [
        *_fields(ctypes.c_uint64, "picture out"),
        *_fields(
            ctypes.c_int32, "in_height in_width height width channels stride padding reserved"
        ),
    ]
