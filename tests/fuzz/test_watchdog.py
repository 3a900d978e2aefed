"""A parser that never returns is told by `benchmarks/fuzz.py`, with the number of its case."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib.util, sys, threading, types
from pathlib import Path
from tests.fuzz.target import target

tried = []

def parse(data):
    tried.append(data)
    if len(tried) == 3:
        threading.Event().wait()

alltargets = sys.modules["tests.fuzz.alltargets"] = types.ModuleType("alltargets")
alltargets.target_named = lambda name: target(name, (b"seed",), parse)
spec = importlib.util.spec_from_file_location("fuzz", sys.argv[1])
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)
fuzz.run_one("a parser", 1, 40, int(sys.argv[3]), 1e9, float(sys.argv[4]), Path(sys.argv[2]))
"""


def run(mark: Path, cases: int, case_seconds: float) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, str(ROOT / "benchmarks" / "fuzz.py"), str(mark)]
    return subprocess.run(
        [*command, str(cases), str(case_seconds)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_case_that_never_ends_is_ended(tmp_path: Path) -> None:
    done = run(tmp_path / "mark", 9, 1.0)
    assert done.returncode != 0
    assert "in parse" in done.stderr
    assert struct.unpack("<q", (tmp_path / "mark").read_bytes()) == (42,)


@pytest.mark.slow
def test_a_run_that_ends_says_so(tmp_path: Path) -> None:
    done = run(tmp_path / "mark", 2, 60.0)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a parser: 2 cases, seed 1,")
    assert struct.unpack("<q", (tmp_path / "mark").read_bytes()) == (-1,)
