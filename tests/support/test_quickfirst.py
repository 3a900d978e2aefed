import pytest
from tests.support.quickfirst import quick_first


def test_all_but_the_first_are_slow() -> None:
    marked = pytest.param(3, "c", id="third", marks=pytest.mark.gpu)
    params = quick_first([(1, "a"), 2, marked], quick=2)
    assert [param.values for param in params] == [(1, "a"), (2,), (3, "c")]
    assert [[mark.name for mark in param.marks] for param in params] == [[], [], ["gpu", "slow"]]
    assert params[2].id == "third"
