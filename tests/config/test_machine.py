import os
import subprocess
import sys
from pathlib import Path

import pytest

from lipwire.config import describe_machine, usable_cores
from lipwire.config.machine import quota_cores

V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
V1 = "31 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
OTHERS = """23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 31 0:36 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset
41 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"""


def system(root: Path, member: str, mount: str, files: dict[str, str]) -> Path:
    """A system's files under ``root``: membership, the group's mount, and files of groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"9:name=systemd:/x\n3:cpuset:/y\n{member}\n")
    (root / "proc/self/mountinfo").write_text(f"{OTHERS}\n{mount}\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(folder: str, quota_us: object, period_us: object = 100_000) -> dict[str, str]:
    base = f"cpu,cpuacct/{folder}".rstrip("/")
    return {
        f"{base}/cpu.cfs_quota_us": f"{quota_us}\n",
        f"{base}/cpu.cfs_period_us": f"{period_us}\n",
    }


@pytest.mark.parametrize(
    ("member", "mount", "files", "cores"),
    [
        # Version 2: in a container on top, or anywhere below.
        ("0::/", V2, {"cpu.max": "max 100000\n"}, None),
        ("0::/", V2, {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", V2, {"cpu.max": "25000 50000\n"}, 0.5),
        ("0::/", V2, {}, None),
        ("0::/", V2, {"cpu.max": ""}, None),
        ("0::/", V2, {"cpu.max": "1 0"}, None),
        ("0::/", V2, {"cpu.max": "many 100000"}, None),
        ("0::/a/b", V2, {"a/b/cpu.max": "200000 100000"}, 2),
        ("0::/a/b", V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", V2, {"a/b/cpu.max": "400000 100000", "cpu.max": "100000 100000"}, 1),
        ("0::/a", V2, {"a/b/cpu.max": "100000 100000", "other/cpu.max": "100000 100000"}, None),
        # The path of the host, and the container's part of the hierarchy.
        (
            "0::/docker/4f/in",
            V2.replace(" / ", " /docker/4f ", 1),
            {"in/cpu.max": "100000 100000"},
            1,
        ),
        ("0::/docker/4f", V2.replace(" / ", " /docker/77 ", 1), {"cpu.max": "100000 100000"}, 1),
        ("0::/../other", V2, {"cpu.max": "250000 100000"}, 2.5),
        # Version 1.
        ("2:cpu,cpuacct:/", V1, v1("", 200_000), 2),
        ("2:cpu,cpuacct:/", V1, v1("", -1), None),
        ("2:cpu,cpuacct:/a/b", V1, v1("a/b", 150_000) | v1("a", -1), 1.5),
        ("2:cpu,cpuacct:/a/b", V1, v1("a/b", -1) | v1("a", 50_000, 25_000), 2),
        ("2:cpu,cpuacct:/a", V1, v1("a", "") | v1("", 0), None),
        ("2:cpu,cpuacct:/a", V1, {"cpuset/a/cpu.cfs_quota_us": "1"}, None),
        (
            "2:cpu,cpuacct:/docker/4f",
            V1.replace(" / ", " /docker/4f ", 1),
            v1("", 300_000),
            3,
        ),
        # Both at once, the processors with version 1.
        ("0::/\n2:cpu:/a", f"{V2}\n{V1}", v1("a", 100_000), 1),
        # What no system writes.
        ("0:nonsense", "more nonsense", {"cpu.max": "100000 100000"}, None),
        # A mount point with a blank in it.
        ("0::/", V2.replace("/cgroup ", r"/cgroup/a\040b "), {"a b/cpu.max": "100000 100000"}, 1),
    ],
)
def test_quotas_of_control_groups(
    tmp_path: Path, member: str, mount: str, files: dict[str, str], cores: float | None
) -> None:
    assert quota_cores(system(tmp_path, member, mount, files)) == cores


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert quota_cores(tmp_path) is None


@pytest.mark.parametrize(("quota_us", "cores"), [(150_000, 2), (10_000, 1), (9_900_000, 64)])
def test_a_quota_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota_us: int, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    files = {"cpu.max": f"{quota_us} 100000"}
    assert usable_cores(system(tmp_path, "0::/", V2, files)) == cores
    assert usable_cores(tmp_path / "nowhere") == 64


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="sets of processors are Linux's")
def test_a_set_of_processors_limits_the_cores() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{one}}})\n"
    code += "from lipwire.config import usable_cores; print(usable_cores())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_nothing_else_counts_cores() -> None:
    source = Path(__file__).parents[2] / "src" / "lipwire"
    counters = ("cpu_count", "sched_getaffinity")
    found = [
        path.relative_to(source).as_posix()
        for path in source.rglob("*.py")
        if any(counter in path.read_text() for counter in counters)
    ]
    assert found == ["config/machine.py"]


def test_the_machine_is_one_line_with_versions() -> None:
    described = describe_machine()
    assert "\n" not in described.line()
    assert f"Python {described.python}" in described.line()
    assert "unknown" not in described.packages.values()
    assert described.as_json()["cores"] == described.cores >= 1
