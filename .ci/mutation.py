"""Change single expressions of the modules that decide who comes next: do tests notice?

    .venv/bin/python -m pip install --target out/mutmut "mutmut>=3.8,<4"
    .venv/bin/python .ci/mutation.py

Which modules and tests is said in pyproject.toml ([tool.mutmut]). Takes minutes. Prints how many of
the changes were noticed in each module, and those that were not; exits with 1 where fewer than 85 %
were. What it works on stays in mutants/: the next run looks only at functions that changed.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST_PERCENT = 85
_UNNOTICED = {0, 5, 33, 34, None}
"""mutmut's codes of changes for which no test failed, that none reaches or that were not tried."""


def main() -> int:
    """0 where enough was noticed in every module."""
    mutmut = ROOT / "out" / "mutmut"
    if not mutmut.is_dir():
        print(f"there is no {mutmut}; the first lines of {__file__} say how to get it")
        return 1
    environ = {**os.environ, "PYTHONPATH": str(mutmut)}
    command = [sys.executable, "-m", "mutmut"]
    # What it prints while it works is one line that is written over again and again.
    subprocess.run([*command, "run"], cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
    enough = True
    for file in sorted((ROOT / "mutants").rglob("*.meta")):
        codes: dict[str, int | None] = json.loads(file.read_text())["exit_code_by_key"]
        if not codes:
            continue
        survivors = [name for name, code in codes.items() if code in _UNNOTICED]
        percent = 100 * (1 - len(survivors) / len(codes))
        enough &= percent >= LEAST_PERCENT
        module = file.relative_to(ROOT / "mutants").with_suffix("")
        print(f"{module}: {percent:.1f} % of {len(codes)} noticed")
        for name in survivors:
            shown = subprocess.run(
                [*command, "show", name], cwd=ROOT, env=environ, text=True, capture_output=True
            )
            changed = re.findall(r"^[-+] .*$", shown.stdout, re.MULTILINE)
            print(f"  {name}", *changed, sep="\n    ")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
