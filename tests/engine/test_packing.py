"""The processor's order of weights, and back."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipwire.engine.packing import PACKINGS, Packing, pack, packed_size, unpack_into


def _unpacked(packed: Any, shape: tuple[int, ...], packing: Packing, width: int) -> Any:
    target = np.full(int(np.prod(shape)), np.nan, packed.dtype)
    unpack_into(target, packed, shape, packing, width)
    return target.reshape(shape)


@given(
    st.tuples(*[st.integers(1, n) for n in (9, 9, 3, 3)]),
    st.sampled_from(PACKINGS),
    st.sampled_from([1, 4, 8]),
)
def test_packed_and_back_is_what_it_was(
    shape: tuple[int, ...], packing: Packing, width: int
) -> None:
    if packing == "padded":
        shape = shape[:1]
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    packed = pack(values, packing, width)
    assert packed is not None
    assert packed.shape == (packed_size(shape, packing, width),)
    assert (_unpacked(packed, shape, packing, width) == values).all()


def test_a_block_of_outputs_lies_together() -> None:
    values = np.arange(2 * 3).reshape(2, 3, 1, 1)  # output o, input i: 3 o + i
    outer = pack(values, "outer", 2)
    both = pack(values, "both", 2)
    assert outer is not None
    assert both is not None
    assert outer.tolist() == [0, 3, 1, 4, 2, 5]
    assert both.tolist() == [0, 3, 1, 4, 2, 5, 0, 0]  # the fourth input is padding


@pytest.mark.parametrize(
    ("packing", "shape"), [("padded", (2, 2)), ("outer", (4,)), ("both", (4,))]
)
def test_arrays_of_other_ranks_are_not_packed_so(packing: Packing, shape: tuple[int, ...]) -> None:
    assert pack(np.zeros(shape), packing, 4) is None
