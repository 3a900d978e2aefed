"""Percentiles by nearest rank: always one of the values, never a number between two."""

from collections.abc import Sequence


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest of ``values`` that ``percent`` per cent of them do not exceed.

    ``values`` need not be sorted, and has to have one value at least; ``percent`` is 0 to 100.
    """
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up; in floats 0.99 x 100 need not be 99
    return ordered[max(0, rank - 1)]
