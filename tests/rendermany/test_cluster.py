"""Workers of a Ray cluster: nothing is lost where a worker and a node are."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.domain import DependencyMissing
from lipwire.rendermany import RenderSettings
from lipwire.rendermany.cluster import RayWorkers

ROOT = Path(__file__).parents[2]
APART = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
"""Ray listens on all addresses; here there is none but loopback."""
JOBS = 60


def namespaces() -> bool:
    """Whether a process may have a network of its own."""
    try:
        return subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
def test_no_job_is_lost_where_a_worker_and_a_node_are(
    folder: Path, two_avatars: Path, write_table: Callable[..., Path]
) -> None:
    pytest.importorskip("ray")
    if not namespaces():
        pytest.skip("no process may have a network of its own here")
    names = [str(two_avatars / ("anna", "bert")[number % 2]) for number in range(JOBS)]
    table = write_table(*(f"{name},a.wav,out/{n}.mp4" for n, name in enumerate(names)))
    command = [sys.executable, "-m", "tests.rendermany.oncluster"]
    ran = subprocess.run(
        [*APART, *command, str(table), str(JOBS // 4), str(JOBS // 2)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    said = json.loads(ran.stdout.splitlines()[-1])
    assert (said["done"], said["failed"]) == (JOBS, [])
    assert said["lost"] >= 2
    lines = table.with_suffix(".done").read_text().splitlines()
    outs = Counter(json.loads(line)["out"] for line in lines)
    assert outs == Counter(str(folder / "out" / f"{number}.mp4") for number in range(JOBS))
    sizes = {(names[n], (folder / "out" / f"{n}.mp4").stat().st_size) for n in range(JOBS)}
    assert len(sizes) == 2  # those of one avatar are the same video


def test_ray_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyMissing, match=r'pip install "lipwire\[ray\]"'):
        RayWorkers("auto", RenderSettings())
