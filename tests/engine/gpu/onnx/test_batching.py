"""Batches cover a request exactly as cheaply as can be."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipwire.engine.gpu.onnx.batching import split
from lipwire.engine.tuning import BATCH_SIZES

SIZES = st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True).map(
    lambda sizes: tuple(sorted(sizes))
)


@given(st.integers(1, 300))
def test_with_a_batch_of_one_nothing_is_padded(frames: int) -> None:
    batches = split(frames)
    assert sum(batches) == frames
    assert set(batches) <= set(BATCH_SIZES)
    assert list(batches) == sorted(batches, reverse=True)


@given(st.integers(1, 30), SIZES)
def test_no_way_pads_less_or_takes_fewer_batches(frames: int, sizes: tuple[int, ...]) -> None:
    batches = split(frames, sizes)
    assert set(batches) <= set(sizes)
    made = (sum(batches), len(batches))
    assert made[0] >= frames
    # Every total that up to `enough` batches can make, by trying them all.
    enough = -(-frames // sizes[0])
    for count in range(1, min(enough, 4) + 1):
        for way in itertools.combinations_with_replacement(sizes, count):
            if sum(way) >= frames:
                assert made <= (sum(way), count)


@pytest.mark.parametrize(
    ("frames", "batches"),
    [
        (1, (1,)),
        (3, (2, 1)),
        (4, (4,)),
        (25, (24, 1)),
        (48, (32, 16)),
        (50, (50,)),
        (150, (50,) * 3),
    ],
)
def test_requests_of_the_guide(frames: int, batches: tuple[int, ...]) -> None:
    assert split(frames) == batches


@pytest.mark.parametrize(("frames", "batches"), [(1, (4,)), (4, (4,)), (5, (4, 4))])
def test_a_fixed_batch_is_filled_up(frames: int, batches: tuple[int, ...]) -> None:
    assert split(frames, (4,)) == batches
