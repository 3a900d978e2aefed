import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lipwire.bench.footprint import footprint, growth
from lipwire.domain import NotFound

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells it")


# What else a process of many tests does (memory that is freed just then, threads that end) is not
# in these figures: a process of its own takes what it is told to take, and waits.
_TAKES = """
import sys, threading
ask = sys.stdin.readline
print("ready", flush=True)
ask()
leave = threading.Event()
threading.Thread(target=leave.wait, daemon=True).start()
file = open(sys.argv[1], "w")
held = bytearray(b"x") * (64 * 2**20)
print("taken", flush=True)
ask()
"""


@pytest.mark.slow
def test_memory_threads_and_files_are_those_of_the_process(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _TAKES, str(tmp_path / "file")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        before = footprint(process.pid)
        process.stdin.write("take\n")
        process.stdin.flush()
        assert process.stdout.readline() == "taken\n"
        now = footprint(process.pid, proportional=True)
        process.stdin.close()
    assert process.returncode == 0
    assert now.threads == before.threads + 1
    assert now.files == before.files + 1
    assert 64 * 2**20 <= now.own_bytes - before.own_bytes < 80 * 2**20
    assert now.own_bytes < now.resident_bytes <= now.peak_bytes
    assert before.proportional_bytes == 0 < now.proportional_bytes <= now.resident_bytes * 1.1
    assert now.maps > 10


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
