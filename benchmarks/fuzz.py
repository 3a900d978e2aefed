"""Hand damaged input to every parser that meets foreign bytes, many times.

    python benchmarks/fuzz.py --cases 100000 --seed 1 [--only NAME ...] [--seconds 60]
        [--case-seconds 60] [--list]

Each parser is tried in a process of its own, with inputs that are the same for the same seed: valid
ones with up to six damages, and noise. Printed are the cases, the seed, the seconds, the kinds of
answers, by how much its memory grew after the first tenth, the slowest case, and the one with the
most memory. Whatever is no clear error of Lipwire's, and a case that takes more memory or processor
time than ``tests/fuzz/costs.py`` allows, is printed with the number of its case; ``--first NUMBER
--cases 1`` tries that alone. The exit status is 1 then. ``--seconds`` ends each parser's run after
so long. A case that takes longer than ``--case-seconds`` ends the parser's run, and where each
thread was is printed.
"""

import argparse
import faulthandler
import random
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

OVER = -1
"""In the file with the number of the case in hand: all are done."""


def run_one(
    name: str, seed: int, first: int, cases: int, seconds: float, case_seconds: float, mark: Path
) -> int:
    """Try one parser in this process; return how many inputs made it fail. The process ends where
    one takes longer than ``case_seconds``."""
    from tests.fuzz.alltargets import target_named
    from tests.fuzz.costs import MIB, measured, resident_bytes
    from tests.fuzz.mutations import random_input

    chosen = target_named(name)
    seen: Counter[str] = Counter()
    failed = done = 0
    slowest = (0.0, first)
    largest = (0, first)
    warm = max(1, cases // 10)
    before = 0
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, chosen.opened(Path(folder)) as attempt:
        with mark.open("wb", buffering=0) as marking:
            for number in range(first, first + cases):
                data = random_input(random.Random(f"{seed}/{number}"), chosen.seeds, chosen.words)
                marking.seek(0)
                marking.write(struct.pack("<q", number))
                # A thread that needs no interpreter: it also ends code in C that never returns.
                faulthandler.dump_traceback_later(case_seconds, exit=True)
                case_s = time.monotonic()
                try:
                    with measured() as cost:
                        word = attempt(data)
                    if wrong := cost.memory_told() or cost.time_told():
                        raise AssertionError(wrong)
                    seen[word] += 1
                except Exception as error:
                    failed += 1
                    seen[f"FAULT {type(error).__name__}"] += 1
                    if failed <= 5:
                        print(f"--- {name}: case {number} of seed {seed}: {data[:300]!r}")
                        traceback.print_exc(limit=-6, file=sys.stdout)
                took_s = time.monotonic() - case_s
                slowest = max(slowest, (took_s, number))
                if done:  # the first one loads libraries
                    largest = max(largest, (cost.grown_bytes, number))
                done += 1
                if done == warm:
                    before = resident_bytes()
                if time.monotonic() - began_s > seconds:
                    break
            faulthandler.cancel_dump_traceback_later()
            marking.seek(0)
            marking.write(struct.pack("<q", OVER))
        growth = resident_bytes() - (before or resident_bytes())
    kinds = ", ".join(f"{kind} {count}" for kind, count in seen.most_common())
    print(
        f"{name}: {done} cases, seed {seed}, {time.monotonic() - began_s:.1f} s,"
        f" memory {growth / MIB:+.1f} MiB, slowest {1000 * slowest[0]:.0f} ms (case {slowest[1]}),"
        f" largest {largest[0] / MIB:.0f} MiB (case {largest[1]}); {kinds}",
        flush=True,
    )
    return failed


def main() -> int:
    """Try the parsers that the arguments name, all without any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--case-seconds", type=float, default=60.0)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    from tests.fuzz.alltargets import names

    if asked.list:
        print("\n".join(names()))
        return 0
    if asked.here is not None:
        (name,) = asked.only
        times_s = asked.seconds, asked.case_seconds
        status = run_one(name, asked.seed, asked.first, asked.cases, *times_s, asked.here)
        return 1 if status else 0
    failed = []
    for name in asked.only or names():
        with tempfile.NamedTemporaryFile() as mark:
            options = ("cases", "seed", "first", "seconds", "case_seconds")
            passed = [f"--{each.replace('_', '-')}={getattr(asked, each)}" for each in options]
            command = [sys.executable, __file__, f"--only={name}", f"--here={mark.name}", *passed]
            child = subprocess.run(command, stderr=subprocess.PIPE, check=False)
            if child.returncode:
                failed.append(name)
                print(child.stderr.decode("utf-8", "replace")[-2000:])
            number = struct.unpack("<q", Path(mark.name).read_bytes()[:8].ljust(8, b"\0"))[0]
            if number != OVER:
                print(f"{name}: ended with {child.returncode} in case {number}, seed {asked.seed}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
