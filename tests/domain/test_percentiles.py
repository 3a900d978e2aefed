"""Percentiles by nearest rank."""

import numpy as np
import pytest

from lipwire.domain import percentile


@pytest.mark.parametrize("percent", [0, 1, 50, 99, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 101, 200, 512])
def test_they_are_numpys_by_nearest_rank(count: int, percent: int) -> None:
    values = np.random.default_rng(count).permutation(count) * 0.5
    wanted = np.percentile(values, percent, method="inverted_cdf")
    assert percentile(values.tolist(), percent) == wanted


def test_what_is_given_is_left_as_it_is() -> None:
    values = [3.0, 1.0, 2.0]
    assert percentile(values, 50) == 2.0
    assert values == [3.0, 1.0, 2.0]
