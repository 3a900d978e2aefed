"""What kernels are given, as the CUDA files of this folder declare it."""

import ctypes
from typing import Final

NO_BIAS: Final = 0xFFFFFFFF
"""The place of a bias that is not there."""


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class WeightOffsets(ctypes.Structure):
    """Where a kernel finds its weights and biases: offsets in bytes from the beginning of the block
    that holds all weights of an avatar, in the layout that the CUDA text declares."""

    _fields_ = _fields(
        ctypes.c_uint32,
        "expand expand_bias depthwise depthwise_bias project project_bias mouth mouth_bias",
    )


class BlockArguments(ctypes.Structure):
    """The argument of the kernel ``Block``, which computes an inverted residual: addresses, sizes
    and offsets of weights, in the layout that the CUDA text declares."""

    _fields_ = [
        *_fields(ctypes.c_uint64, "weights first second out"),
        *_fields(
            ctypes.c_int32,
            "height width mask_top mask_bottom mask_left mask_right tiles_down tiles_each",
        ),
        ("at", WeightOffsets),
    ]


class LayerArguments(ctypes.Structure):
    """The argument of the kernel ``Layer``, which computes one convolution: addresses, sizes and
    offsets of weights, in the layout that the CUDA text declares."""

    _fields_ = [
        *_fields(ctypes.c_uint64, "weights first second residual out"),
        *_fields(
            ctypes.c_int32,
            "in_height in_width height width channels_1 channels_2 depth outputs relu tiles_across",
        ),
        *_fields(ctypes.c_uint32, "weight bias depthwise depthwise_bias"),
    ]


class SpeechArguments(ctypes.Structure):
    """The argument of the kernel that puts the channels of audio windows last: addresses and sizes,
    in the layout that the CUDA text declares."""

    _fields_ = [
        *_fields(ctypes.c_uint64, "speech out"),
        *_fields(ctypes.c_int32, "channels height width reserved"),
    ]


class DoubledArguments(ctypes.Structure):
    """The argument of the kernel that doubles the height and width of a tensor: addresses and
    sizes, in the layout that the CUDA text declares."""

    _fields_ = [
        *_fields(ctypes.c_uint64, "small out"),
        *_fields(ctypes.c_int32, "height width channels reserved"),
    ]


class NeighboursArguments(ctypes.Structure):
    """The argument of the kernel that gathers the neighbours of each pixel for a convolution:
    addresses and sizes, in the layout that the CUDA text declares."""

    _fields_ = [
        *_fields(ctypes.c_uint64, "picture out"),
        *_fields(
            ctypes.c_int32, "in_height in_width height width channels stride padding reserved"
        ),
    ]
