"""How pictures are cut into tiles, and the shared memory that a piece of a product takes."""

from collections.abc import Callable, Iterator
from itertools import product
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.emulator import Emulator

from lipwire.engine.gpu.kernels.cuda.kerneltexts import KernelTexts
from lipwire.engine.gpu.kernels.cuda.tiling import (
    LAYER_SHAPES,
    SMALL,
    TILE_SHAPES,
    WARPS,
    Shape,
    block_shared_bytes,
    layer_shared_bytes,
    tile,
)

STRIPS = {1: 2, 2: 1}
"""Of a Block, by its stride."""


def _tiles(height: int, width: int, rows: int, columns: int) -> int:
    return ceil(height / rows) * ceil(width / columns)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 64))
def test_no_tiles_of_so_many_pixels_are_fewer(height: int, width: int, most: int) -> None:
    rows, columns = tile(height, width, most)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= most
    every = ((r, most // r) for r in range(1, min(most, height) + 1))
    assert _tiles(height, width, rows, columns) == min(
        _tiles(height, width, r, min(c, width)) for r, c in every
    )


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(40, 40, (8, 8)), (10, 10, (5, 10)), (20, 20, (3, 20)), (5, 5, (5, 5)), (1, 1, (1, 1))],
)
def test_of_as_many_tiles_those_with_short_edges_are_taken(
    height: int, width: int, size: tuple[int, int]
) -> None:
    rows, columns = tile(height, width, 64)
    assert sorted((rows, columns)) == sorted(size)


def _sizes(shape: Shape) -> str:
    warps = f"{shape.warps_down}, {shape.warps_across}"
    return f"{shape.pixels}, {shape.outputs}, {warps}, {shape.ahead}"


def _layers() -> Iterator[tuple[str, int]]:
    """Templates, and what this module says of their shared memory."""
    for shape in {*LAYER_SHAPES, SMALL}:
        sizes = _sizes(shape)
        yield f"Layer<COPIED, 0, 0, 0, {sizes}>", layer_shared_bytes(shape, "COPIED", 1, 0, 0)
    tiles = [(8, 8), (5, 10), (2, 32), (64, 1), (1, 1), (3, 17), (9, 7)]
    for shape, (rows, columns), stride in product({*TILE_SHAPES, SMALL}, tiles, (1, 2)):
        sizes = _sizes(shape)
        size_bytes = layer_shared_bytes(shape, "DEPTHWISE", stride, rows, columns)
        yield f"Layer<DEPTHWISE, {stride}, {rows}, {columns}, {sizes}>", size_bytes


def _blocks() -> Iterator[tuple[str, int]]:
    channels = [("PIXELS", 6, 0), ("PLAIN", 8, 0), ("PLAIN", 64, 0), ("JOINED", 24, 16)]
    for (source, first, second), middle, outputs, stride in product(
        channels, (12, 16, 24, 40, 128), (8, 24, 64), (1, 2)
    ):
        strips = STRIPS[stride]
        parts = f"{source}, {first}, {second}, {middle}, {outputs}, {stride}, false, NO_MOUTH"
        size_bytes = block_shared_bytes(first + second, middle, outputs, stride, strips)
        yield f"Block<{parts}, {WARPS}, {strips}>", size_bytes


@pytest.mark.slow
@pytest.mark.parametrize("every", [16, 1])
def test_shared_memory_is_what_the_compiler_makes_of_it(
    emulate: Callable[..., Emulator], every: int
) -> None:
    texts = KernelTexts(1 << 20)
    counted = [*_layers(), *_blocks()][::every]
    for template, size_bytes in counted:
        texts.name(template, "LayerArgs", size_bytes)
    lines = texts.source.text.splitlines()
    compared = [line for line in lines if not line.startswith("KERNEL(kernel_")]
    assert sum("static_assert(sizeof(kernel_" in line for line in compared) == len(counted)
    emulate("\n".join(compared))
