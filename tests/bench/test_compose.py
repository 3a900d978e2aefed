"""The benchmark of the compositor runs, and its picture is no easy one."""

import time
from functools import partial

import pytest

from lipwire.bench import compare, compose
from lipwire.bench.compose import run, textured_picture
from lipwire.compose import encode_jpeg


@pytest.mark.slow
def test_both_sizes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the processor does for this process, and not how long it is kept waiting.
    monkeypatch.setattr(compose, "compare", partial(compare, clock_s=time.process_time))
    for _ in range(10):
        results = run(rounds=5)
        # Far below what is measured on a quiet machine, far above what a broken path would reach.
        if results[0].ratio > 4 and results[3].ratio > 6:
            break  # else again: on a busy machine the short side is the one that suffers
    assert [result.name for result in results] == [
        f"{what} {size}"
        for size in ("1280x720", "1920x1080")
        for what in ("JPEG", "crop, paste and JPEG", "crop, paste and I420")
    ]
    assert results[0].ratio > 4
    assert results[3].ratio > 6


def test_the_picture_is_as_hard_as_a_photograph() -> None:
    assert 100_000 < len(encode_jpeg(textured_picture(1280, 720), 75)) < 140_000
