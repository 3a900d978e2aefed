"""Compare what compiling costs in two checkouts of Lipwire, in turns.

    python benchmarks/compile_processor_time.py PYTHON_A PYTHON_B [ROUNDS]

The Pythons are those of two environments, each with one checkout installed. Each round compiles, in
a fresh process of either side and with nothing compiled before, the networks of the demo avatar and
of the published widths, and the demo avatar with its frames. Printed are seconds of processor time
(all threads, and children) and megabytes on disk, and at the end the medians of A, of B and of the
ratios A / B, round by round.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_COMPILE = """
import json, os, sys
from pathlib import Path
from lipwire.avatars import compile_avatar, read_package
from lipwire.engine import compile_model
what, source, target = sys.argv[1:]
began_s = sum(os.times()[:4])
if what == "network":
    Path(target).mkdir()
    compile_model(Path(source), Path(target))
else:
    compile_avatar(read_package(Path(source)), parts=frozenset({"model", "patches", "jpeg"}))
elapsed_s = sum(os.times()[:4]) - began_s
files = [path for path in Path(target).rglob("*") if path.is_file()]
print(json.dumps([elapsed_s, sum(path.stat().st_size for path in files)]))
"""
_PREPARE = """
import sys
from pathlib import Path
import lipwire
from lipwire.bench.randomnetworks import FULL_WIDTHS, write_unet
write_unet(Path(sys.argv[1]), seed=1, widths=FULL_WIDTHS)
print(Path(lipwire.__file__).parent / "assets" / "avatars" / "demo")
"""


def main(pythons: list[str], rounds: int) -> None:
    """Print the figures of each round, and their medians."""
    with tempfile.TemporaryDirectory(prefix="lipwire-compile-") as scratch:
        published = Path(scratch, "published.onnx")
        demo = Path(_output([pythons[0], "-c", _PREPARE, str(published)]).strip())
        jobs = {
            "demo network": ("network", demo / "checkpoint" / "model_best.onnx"),
            "published network": ("network", published),
            "demo avatar": ("avatar", demo),
        }
        figures: dict[tuple[str, str], list[tuple[float, int]]] = {}
        for number in range(rounds):
            for name, (what, source) in jobs.items():
                for side in "AB" if number % 2 == 0 else "BA":
                    python = pythons["AB".index(side)]
                    seconds, size = _compiled(python, what, source, Path(scratch, "target"))
                    figures.setdefault((name, side), []).append((seconds, size))
                    print(f"round {number + 1} {side} {name}: {seconds:.2f} s", flush=True)
        for name in jobs:
            sides = [figures[name, side] for side in "AB"]
            a_s, b_s = (statistics.median(seconds for seconds, _ in side) for side in sides)
            ratio = statistics.median(a[0] / b[0] for a, b in zip(*sides, strict=True))
            a_mb, b_mb = (side[0][1] / 1e6 for side in sides)
            print(
                f"{name}: A {a_s:.2f} s {a_mb:.1f} MB, B {b_s:.2f} s {b_mb:.1f} MB,"
                f" A / B {ratio:.3f}"
            )


def _compiled(python: str, what: str, source: Path, target: Path) -> tuple[float, int]:
    """Seconds of processor time, and bytes on disk."""
    compiled = target
    if what == "avatar":
        ignored = shutil.ignore_patterns(".lipwire", "evaluation")
        source = shutil.copytree(source, target, ignore=ignored)
        compiled = target / ".lipwire"
    try:
        said = _output([python, "-c", _COMPILE, what, str(source), str(compiled)])
    finally:
        shutil.rmtree(target, ignore_errors=True)
    seconds, size = json.loads(said)
    return seconds, size


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:3], int(sys.argv[3]) if len(sys.argv) > 3 else 5)
