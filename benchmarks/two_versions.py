"""Compare what ``lipwire bench`` measures in two checkouts of Lipwire, in turns.

    python benchmarks/two_versions.py PYTHON_A PYTHON_B ROUNDS SUBJECT ...

The Pythons are those of two environments, each with one checkout installed. Each round runs
``lipwire bench SUBJECT --json`` in a fresh process of either side, A first in one round and B in
the next. Printed are, for each number that both sides tell, the medians of A and B, the median of
the ratios B / A, round by round, and the least and the greatest of these.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any


def measured(python: str, subject: str) -> dict[str, float]:
    said = subprocess.run(
        [python, "-m", "lipwire", "bench", subject, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(numbers(json.loads(said.stdout)))


def numbers(of: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a JSON value, with where they are in it."""
    if isinstance(of, dict):
        for name, value in of.items():
            yield from numbers(value, f"{path}.{name}".lstrip("."))
    elif isinstance(of, list):
        for place, value in enumerate(of):
            name = value.get("name") if isinstance(value, dict) else None
            yield from numbers(value, f"{path}[{name or place}]")
    elif isinstance(of, int | float) and not isinstance(of, bool):
        yield path, float(of)


def compare(pythons: tuple[str, str], rounds: int, subject: str) -> None:
    seen: dict[str, list[list[float]]] = {}
    for turn in range(rounds):
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        both: list[dict[str, float]] = [{}, {}]
        for side in order:
            both[side] = measured(pythons[side], subject)
        for path in both[0].keys() & both[1].keys():
            seen.setdefault(path, []).append([each[path] for each in both])
    print(f"{subject}: {rounds} rounds; A, B, B / A (least to greatest)")
    for path, pairs in sorted(seen.items()):
        a, b = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratios = sorted(after / before for before, after in pairs if before)
        if ratios:
            told = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            print(f"  {path}: {a:.4g} {b:.4g} {told}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 5 or not sys.argv[3].isdecimal():
        sys.exit("wanted are PYTHON_A PYTHON_B ROUNDS SUBJECT ...")
    for wanted in sys.argv[4:]:
        compare((sys.argv[1], sys.argv[2]), int(sys.argv[3]), wanted)
