import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipwire.bench.footprint import footprint, growth
from lipwire.domain import NotFound

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells it")


def test_memory_threads_and_files_are_those_of_the_process(tmp_path: Path) -> None:
    before = footprint(os.getpid())
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    with (tmp_path / "file").open("w"):
        held = np.ones(64 * 2**20, np.uint8)
        now = footprint(os.getpid(), proportional=True)
    assert now.threads == before.threads + 1
    assert now.files == before.files + 1
    assert 60 * 2**20 < now.own_bytes - before.own_bytes < 80 * 2**20
    assert held.sum() == held.size
    assert now.own_bytes < now.resident_bytes <= now.peak_bytes
    assert before.proportional_bytes == 0 < now.proportional_bytes <= now.resident_bytes * 1.1
    assert now.maps > 10
    leave.set()
    thread.join()


def test_a_process_that_is_not_there_is_said() -> None:
    with pytest.raises(NotFound, match="there is no process 999999999"):
        footprint(999999999)


def test_growth_is_from_the_first_third_to_the_last() -> None:
    one = footprint(os.getpid())
    seen = [(float(at), replace(one, threads=10 + 2 * at)) for at in range(9)]
    seen[1] = (1.0, replace(one, threads=500))  # a single look does not count for much
    grown = growth(seen, lambda held: held.threads)
    assert (grown.first, grown.last, grown.change) == (14, 24, 10)
    steady = growth([(at, one) for at, _ in seen], lambda held: held.threads)
    assert (steady.change, steady.slope) == (0, 0)
