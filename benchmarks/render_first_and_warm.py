"""Compare renders of two checkouts of Lipwire, in turns: the first of a process and a warm one.

    python benchmarks/render_first_and_warm.py PYTHON_A PYTHON_B SPEECH [ROUNDS]

The Pythons are those of two environments, each with one checkout installed; SPEECH is a recording.
Each round renders the demo avatar twice in a fresh process of either side. Printed are seconds of
processor time and of wall time, and at the end the medians of the ratios A / B, round by round.
The avatar is copied for each side and compiled before.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_RENDER = """
import json, sys, time
from lipwire.api import open_avatar
folder, speech, out = sys.argv[1:]
figures = []
with open_avatar(folder, outputs=("i420",)) as avatar:
    for _ in range(2):
        started_s = time.process_time(), time.perf_counter()
        avatar.render(speech, out)
        figures.append((time.process_time() - started_s[0], time.perf_counter() - started_s[1]))
print(json.dumps(figures))
"""
_FOLDER = "import lipwire, pathlib; print(pathlib.Path(lipwire.__file__).parent)"


def main(pythons: list[str], speech: str, rounds: int) -> None:
    """Print the figures of each round and the medians of their ratios."""
    with tempfile.TemporaryDirectory(prefix="lipwire-render-") as scratch:
        sides = []
        for side, python in zip("AB", pythons, strict=True):
            package = _output([python, "-c", _FOLDER]).strip()
            avatar = Path(scratch) / side
            shutil.copytree(Path(package) / "assets" / "avatars" / "demo", avatar)
            sides.append([python, "-c", _RENDER, str(avatar), speech, f"{avatar}.mp4"])
            _output(sides[-1])  # compiles it
        ratios: dict[str, list[float]] = {}
        for number in range(rounds):
            figures = {}
            for side in "AB" if number % 2 == 0 else "BA":
                figures[side] = json.loads(_output(sides["AB".index(side)]))
            for render, name in enumerate(("first", "warm")):
                for clock, what in enumerate(("processor", "wall")):
                    a, b = (figures[side][render][clock] for side in "AB")
                    ratios.setdefault(f"{name} {what}", []).append(a / b)
                    print(f"round {number + 1} {name} {what}: {a:.2f} s, {b:.2f} s", flush=True)
        for name, values in ratios.items():
            print(f"{name}: {statistics.median(values):.3f}")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main(sys.argv[1:3], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 5)
