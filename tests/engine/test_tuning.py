"""Tunings that can be."""

from collections.abc import Callable

import pytest

from lipwire.domain import InvalidInput
from lipwire.engine.tuning import Tuning


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Tuning(streams=0),
        lambda: Tuning(streams=9),
        lambda: Tuning(batch_sizes=()),
        lambda: Tuning(batch_sizes=(4, 2)),
        lambda: Tuning(batch_sizes=(0, 2)),
    ],
)
def test_a_tuning_that_cannot_be_is_refused(wrong: Callable[[], Tuning]) -> None:
    with pytest.raises(InvalidInput):
        wrong()
