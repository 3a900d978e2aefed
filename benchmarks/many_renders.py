"""Render a table of many short jobs on a Ray cluster of two nodes, and end a worker and a node
meanwhile.

    python benchmarks/many_renders.py [JOBS]

Two tiny avatars in turns, a tenth of a second each. Printed are how many were rendered, how many
workers were lost, and how long it took. The cluster runs in a network of its own, as Ray listens on
all addresses: this needs root on Linux.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # test doubles

from tests.conftest import make_package_at
from tests.rendermany.conftest import write_recording
from tests.rendermany.test_cluster import APART

from lipwire.avatars import compile_avatar, read_package
from lipwire.config.machine import describe_machine


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory(prefix="lipwire-many-") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        write_recording(folder / "a.wav")
        for seed, avatar in enumerate(("anna", "bert")):
            package = make_package_at(folder / avatar, frames=4, size=(128, 96), seed=seed)
            compile_avatar(read_package(package), parts=frozenset({"model", "patches"}))
        rows = (f"./{('anna', 'bert')[n % 2]},a.wav,out/{n}.mp4" for n in range(count))
        table = folder / "jobs.csv"
        table.write_text("\n".join(("avatar,audio,out", *rows)))
        command = [*APART, sys.executable, "-m", "tests.rendermany.oncluster", str(table)]
        begun_s = time.monotonic()
        ran = subprocess.run(
            [*command, str(count // 4), str(count // 2)],
            cwd=Path(__file__).parents[1],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        took_s = time.monotonic() - begun_s
        said = json.loads(ran.stdout.splitlines()[-1])
        lines = table.with_suffix(".done").read_text().splitlines()
        times = Counter(Counter(json.loads(line)["out"] for line in lines).values())
        videos = len(list((folder / "out").glob("*.mp4")))
        print(
            f"{count} jobs: {said['done']} rendered, {len(said['failed'])} failed, {videos} videos,"
            f" {times[1]} of them once; {said['lost']} workers lost; {took_s:.0f} s"
        )
    print(describe_machine().line())


if __name__ == "__main__":
    main()
