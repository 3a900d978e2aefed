"""How kernels cut pictures and products into pieces, and what shared memory a piece takes."""

from dataclasses import dataclass
from math import ceil
from typing import Final

HALF_BYTES: Final = 2
WARPS: Final = 4
THREADS: Final = 32 * WARPS
"""Of a block of threads, in all kernels."""
BLOCK_COLUMNS: Final = 8
"""Of a ``Block``'s tile."""
_CHUNK: Final = 32
"""Columns of a left side that ``Layer`` makes at a time."""
_TAPS: Final = 12
"""Words that ``Block`` keeps for nine weights."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The part of a matrix product that one block of threads computes: ``pixels`` rows of
    ``outputs`` channels, divided among ``warps_down`` x ``warps_across`` warps.

    ``ahead`` is how many chunks of the two factors are being copied to shared memory while one is
    computed with.
    """

    pixels: int
    outputs: int
    warps_down: int
    warps_across: int
    ahead: int = 2
    """Chunks of its sides that are on their way: more where few blocks of threads share a
    multiprocessor, and none computes while another waits."""


LAYER_SHAPES: Final = (Shape(64, 128, 2, 2), Shape(128, 64, 4, 1), Shape(128, 32, 4, 1))
TILE_SHAPES: Final = (Shape(64, 128, 2, 2), Shape(64, 64, 2, 2), Shape(64, 32, 4, 1))
"""Of DEPTHWISE: as many pixels as its warps make of the left side."""
SMALL: Final = Shape(64, 32, 4, 1, ahead=4)
"""Where the others would leave multiprocessors without work."""


def _up(value: int, unit: int) -> int:
    return ceil(value / unit) * unit


def tile(height: int, width: int, most_pixels: int) -> tuple[int, int]:
    """Return the (rows, columns) of the tiles that a picture of ``height`` x ``width`` pixels is
    cut into.

    A tile has at most ``most_pixels`` pixels. Of the sizes that need the fewest tiles, the one is
    returned that has the fewest pixels together with a border of one pixel around it.
    """
    tiles = [
        (min(most_pixels // columns, height), columns)
        for columns in range(1, min(most_pixels, width) + 1)
    ]
    return min(
        tiles,
        key=lambda size: (
            ceil(height / size[0]) * ceil(width / size[1]),
            (size[0] + 2) * (size[1] + 2),
        ),
    )


def layer_shared_bytes(
    shape: Shape, left: str, stride: int, tile_rows: int, tile_columns: int
) -> int:
    """Return the bytes of shared memory that a block of threads takes in a kernel ``Layer``:
    ``sizeof(Layer::Shared)`` in layer.cuh, as the compiler checks.

    ``shape`` is the part of a matrix product that the block computes. ``left`` is the kind of the
    product's left side, "COPIED" or "DEPTHWISE". For "DEPTHWISE" ``stride`` is that of the
    depthwise convolution, and ``tile_rows`` x ``tile_columns`` the size of a tile in pixels. For
    "COPIED" ``tile_rows`` and ``tile_columns`` are 0, and ``stride`` makes no difference.
    """
    pitch = _CHUNK + 8
    left_stages = shape.ahead + 1 if left == "COPIED" else 2
    halves = (left_stages * shape.pixels + (shape.ahead + 1) * shape.outputs) * pitch
    if tile_rows:
        pixels = ((tile_rows - 1) * stride + 3) * ((tile_columns - 1) * stride + 3)
        halves += shape.ahead * (_up(pixels, THREADS * 8 // _CHUNK) * pitch + _CHUNK * 9 + _CHUNK)
    return halves * HALF_BYTES


def block_shared_bytes(inputs: int, middle: int, outputs: int, stride: int, strips: int) -> int:
    """Return the bytes of shared memory that a block of threads takes in a kernel ``Block``. It is
    ``sizeof(Block::Shared)`` in block.cuh; a static_assert in each compiled program compares the
    two.

    ``inputs``, ``middle`` and ``outputs`` are the channels of an inverted residual before, within
    and after it, ``stride`` (1 or 2) is its depthwise convolution's, and ``strips`` (1 or 2) how
    many strips of two rows each warp computes.
    """
    depth, wide, narrow = _up(inputs, 16), _up(middle, 16), _up(outputs, 8)
    chunk = 32 if wide % 32 == 0 else 16
    columns = (BLOCK_COLUMNS - 1) * stride + 3
    rows = (2 * strips * WARPS - 1) * stride + 3
    pixels = _up(columns * rows, 16 * WARPS)
    halves = wide * (depth + 8) + narrow * (wide + 8)
    words = (wide + 1) * _TAPS + 2 * wide + narrow
    changing = max(pixels * (depth + 8), 2 * pixels * (chunk + 8))
    return _up((halves + changing) * HALF_BYTES + words * 4, 16)
