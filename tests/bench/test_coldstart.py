import os

import pytest

from lipwire.bench import coldstart
from lipwire.bench.randomnetworks import Widths

NARROW: Widths = (2, 4, 8, 8, 8)


@pytest.mark.slow
def test_compares_a_cold_avatar_with_the_plain_way() -> None:
    results = coldstart.run(1, frames=3, size=(320, 240), widths=NARROW)
    states = [result.name.split(",")[1].strip() for result in results]
    disk = ["from the disk"] if hasattr(os, "posix_fadvise") else []
    assert states == ["fresh process", "running server", *disk]
    for result in results:
        assert result.rounds == 1
        assert "besides one inference of" in result.notes
        assert result.median_a_ms > 0
        assert result.ratio > 0
