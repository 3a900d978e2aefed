"""Comparing two ways to do one thing, so that the ratio holds on a busy machine.

Both sides run in one process, in turns (A B, then B A, then A B again, ...), so that a slow moment
of the machine falls on both. The ratio is the median of the ratios of neighbours, which a few
disturbed rounds cannot move; the absolute times are medians as well.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from lipwire.domain import percentile

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one comparison measured: side A is the way under test, side B the reference.

    ``ratio`` is the median over all rounds of (time of B) / (time of A) in that round: above 1, A
    is faster. The 99th percentiles are those of the measured rounds, so with fewer than 100 rounds
    they are the slowest round.
    """

    name: str
    label_a: str
    label_b: str
    median_a_ms: float
    median_b_ms: float
    p99_a_ms: float
    p99_b_ms: float
    ratio: float
    rounds: int
    notes: str = ""


def compare(
    name: str,
    a: Callable[[], object],
    b: Callable[[], object],
    *,
    label_a: str,
    label_b: str,
    rounds: int,
    warmup: int = 3,
    notes: str = "",
    clock_s: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Time the calls ``a()`` and ``b()`` against each other: ``warmup`` rounds that are not
    counted, then ``rounds`` that are. Each round calls both once; which one is first alternates.
    ``name``, ``label_a``, ``label_b`` and ``notes`` are texts for people, which the result repeats.
    ``clock_s()`` returns seconds.

    Garbage is collected before the measurement and not during it. An error that ``a()`` or ``b()``
    raises ends the comparison and is raised here.

    Raises ValueError when ``rounds`` is below 1 or ``warmup`` below 0.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, at least 1 is needed")
    if warmup < 0:
        raise ValueError(f"warmup is {warmup}, at least 0 is needed")
    for _ in range(warmup):
        a()
        b()
    times_a_ms: list[float] = []
    times_b_ms: list[float] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for round_index in range(rounds):
            if round_index % 2 == 0:
                times_a_ms.append(_time_ms(a, clock_s))
                times_b_ms.append(_time_ms(b, clock_s))
            else:
                times_b_ms.append(_time_ms(b, clock_s))
                times_a_ms.append(_time_ms(a, clock_s))
    finally:
        if collecting:
            gc.enable()
    ratio = statistics.median(
        time_b / max(time_a, 1e-9) for time_a, time_b in zip(times_a_ms, times_b_ms, strict=True)
    )
    return Comparison(
        name=name,
        label_a=label_a,
        label_b=label_b,
        median_a_ms=statistics.median(times_a_ms),
        median_b_ms=statistics.median(times_b_ms),
        p99_a_ms=percentile(times_a_ms, 99),
        p99_b_ms=percentile(times_b_ms, 99),
        ratio=ratio,
        rounds=rounds,
        notes=notes,
    )


def _time_ms(call: Callable[[], object], clock_s: Callable[[], float]) -> float:
    start_s = clock_s()
    call()
    return (clock_s() - start_s) * 1000.0
