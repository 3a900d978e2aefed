"""Print what of the core packages their tests reach, and make sure that it is not less than before.

    python .ci/coverage_gates.py out/coverage.json

The file is coverage.py's report of a run that measured branches. Exits with 1 where a package is
below its gate: raise a gate with what is reached, and lower none without saying why.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

GATES_PERCENT = {
    "lipwire/compose": 98.0,
    "lipwire/registry": 96.0,
    "lipwire/rpc/backends": 93.5,
    "lipwire/scheduling": 98.0,
    "lipwire/serving": 95.5,
    "lipwire/session": 97.5,
}
"""Lines and branches reached of all there are, less what depends on which thread is first."""


def main(report: Path) -> int:
    """1 where a package is below its gate, 0 otherwise."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    missed: dict[str, list[str]] = defaultdict(list)
    for name, file in json.loads(report.read_text())["files"].items():
        path = Path(name).as_posix().removeprefix("src/")
        package = next(package for package in GATES_PERCENT if path.startswith(f"{package}/"))
        summary = file["summary"]
        for place, key in enumerate(
            ("covered_lines", "num_statements", "covered_branches", "num_branches")
        ):
            sums[package][place] += summary[key]
        if file["missing_branches"] or file["missing_lines"]:
            lines = sorted({*file["missing_lines"], *(at for at, _ in file["missing_branches"])})
            missed[package].append(f"  {path}: {', '.join(map(str, lines))}")
    below = 0
    print(f"{'package':22}{'lines':>8}{'branches':>10}{'both':>8}{'gate':>8}")
    for package, gate_percent in GATES_PERCENT.items():
        lines, all_lines, branches, all_branches = sums[package]
        both = 100 * (lines + branches) / max(all_lines + all_branches, 1)
        below += both < gate_percent
        print(
            f"{package:22}{100 * lines / max(all_lines, 1):7.1f}%"
            f"{100 * branches / max(all_branches, 1):9.1f}%{both:7.1f}%{gate_percent:7.1f}%"
            f"{'  below its gate' if both < gate_percent else ''}"
        )
    print(
        "not reached, or not both ways:",
        *(line for all in missed.values() for line in all),
        sep="\n",
    )
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
