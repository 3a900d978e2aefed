"""Parameters of which the quick suite tries only the first."""

from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet


def quick_first(values: Iterable[object], quick: int = 1) -> list[ParameterSet]:
    """``values`` for ``pytest.mark.parametrize``; those after the first ``quick`` are marked slow.

    A tuple is the values of several names, one for each; what ``pytest.param`` made keeps its id
    and its marks.
    """
    return [
        _param(value, () if number < quick else (pytest.mark.slow,))
        for number, value in enumerate(values)
    ]


def _param(value: object, marks: tuple[pytest.MarkDecorator, ...]) -> ParameterSet:
    if isinstance(value, ParameterSet):
        return pytest.param(*value.values, id=value.id, marks=(*value.marks, *marks))
    return pytest.param(*value if isinstance(value, tuple) else (value,), marks=marks)
