"""How the processor's optimiser lays weights out, and back.

On the processor ONNX Runtime computes on blocks of channels (NCHWc) and stores weights so that a
block lies together. A GPU wants them as exported. They are the same numbers, so a compiled avatar
holds them once, in the processor's order, and this module finds and undoes the order:

    plain   as they are
    padded  (O) with zeros up to a whole block
    outer   (O, I, H, W) -> (O/b, I, H, W, b), O padded
    both    (O, I, H, W) -> (O/b, I/b, H, W, b, b), O and I padded; the last index is of O

(``ReorderFilter`` in onnxruntime/core/mlas/lib/reorder.cpp: OIHWBo and OIHWBiBo.)
"""

import math
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

Packing = Literal["plain", "padded", "outer", "both"]
PACKINGS: Final[tuple[Packing, ...]] = get_args(Packing)

_Array = npt.NDArray[np.generic]


def packed_size(shape: tuple[int, ...], packing: Packing, width: int) -> int:
    """How many numbers an array of ``shape`` takes, packed in blocks of ``width``."""
    return math.prod(_padded_shape(shape, packing, width))


def pack(values: _Array, packing: Packing, width: int) -> _Array | None:
    """``values`` packed, as a flat array; None where arrays of their rank are not packed so."""
    if values.ndim not in _ranks(packing):
        return None
    if packing == "plain":
        return np.ascontiguousarray(values).reshape(-1)
    padded = np.zeros(_padded_shape(values.shape, packing, width), values.dtype)
    padded[tuple(slice(size) for size in values.shape)] = values
    if packing == "padded":
        return padded
    return np.ascontiguousarray(_blocked(padded, packing, width)).reshape(-1)


def unpack_into(
    target: _Array, data: _Array, shape: tuple[int, ...], packing: Packing, width: int
) -> None:
    """Write the array of ``shape`` that ``data`` (flat, packed) holds into ``target`` (flat)."""
    if packing == "plain":
        target[:] = data
        return
    padded = _padded_shape(shape, packing, width)
    if packing == "padded":
        plain = data
    else:
        blocked = _blocked(np.empty(padded, np.bool_), packing, width).shape
        order = (0, 4, 1, 2, 3) if packing == "outer" else (0, 5, 1, 4, 2, 3)
        plain = data.reshape(blocked).transpose(order)
        if math.prod(padded) == math.prod(shape):
            # The common case: straight into place, without an array in between.
            np.copyto(target.reshape(plain.shape), plain)
            return
        plain = plain.reshape(padded)
    np.copyto(target.reshape(shape), plain[tuple(slice(size) for size in shape)])


def _ranks(packing: Packing) -> range:
    return {"plain": range(64), "padded": range(1, 2)}.get(packing, range(4, 5))


def _padded_shape(shape: tuple[int, ...], packing: Packing, width: int) -> tuple[int, ...]:
    whole = {"plain": 0, "padded": 1, "outer": 1, "both": 2}[packing]
    return tuple(
        -(-size // width) * width if axis < whole else size for axis, size in enumerate(shape)
    )


def _blocked(padded: _Array, packing: Packing, width: int) -> _Array:
    """The view of an (O, I, H, W) array in the order in which it is stored."""
    outputs, inputs, rows, columns = padded.shape
    if packing == "outer":
        blocks = padded.reshape(outputs // width, width, inputs, rows, columns)
        return blocks.transpose(0, 2, 3, 4, 1)
    shape = (outputs // width, width, inputs // width, width, rows, columns)
    return padded.reshape(shape).transpose(0, 2, 4, 5, 3, 1)
