"""The machine: how many cores there are to use, and what a figure was measured on."""

from __future__ import annotations

import math
import os
import platform
import random
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Machine", "describe_machine", "quota_cores", "usable_cores"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides about speeds on a machine: the name of its ``processor``, how many ``cores``
    this process may use, its ``system`` ("Linux"), the version of ``python``, and those of
    ``packages`` by name."""

    processor: str
    cores: int  # that this process may use
    system: str
    python: str
    packages: dict[str, str]

    def line(self) -> str:
        """Return all facts in one line, for a person."""
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.processor}, {cores}, {self.system}, Python {self.python}, {packages}"

    def as_json(self) -> dict[str, object]:
        """Return all facts by name, as a dictionary for ``json.dumps``."""
        return asdict(self)


def describe_machine() -> Machine:
    """Return facts about the machine that this process runs on, with the versions of ONNX Runtime,
    OpenCV, PyAV and NumPy ("unknown" where one is not installed), without importing these."""
    return Machine(
        processor=_processor(),
        cores=usable_cores(),
        system=platform.system(),
        python=platform.python_version(),
        packages={
            label: _version(distribution)
            for label, distribution in (
                ("ONNX Runtime", "onnxruntime"),
                ("OpenCV", "opencv-python-headless"),
                ("PyAV", "av"),
                ("NumPy", "numpy"),
            )
        },
    )


def usable_cores(system: Path = Path("/")) -> int:
    """Return how many cores this process may keep busy, at least 1.

    In a container that is the container's share and not the number of the host's cores: the CPU set
    and the quotas of control groups count, and a quota of one and a half cores counts as two.
    ``system`` is the folder in which ``proc`` and the control groups' file systems are looked for.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = quota_cores(system)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def keep_to_cores(most: int) -> None:
    """Have this process, with all its threads, use at most ``most`` (1 or more) of the cores that
    it may use; they are chosen at random, and stay the same until it ends. Does nothing where it
    may use no more than ``most``, or on systems other than Linux."""
    if sys.platform != "linux":
        return
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) <= most:
        return
    # Any of them: several such processes are not to share the same few.
    chosen = random.sample(usable, most)
    # Threads that there are already keep theirs otherwise; new ones have those of who starts them.
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), chosen)


def quota_cores(system: Path = Path("/")) -> float | None:
    """Return the smallest quota of this process's control groups, in cores; None where there is
    none. ``system`` is the folder in which ``proc`` and the control groups' file systems are looked
    for.

    A group's quota also limits the groups in it, so those above the process's own count. In version
    2 of control groups a group has the file ``cpu.max``, "max 100000" or "200000 100000":
    microseconds of work in a period
    (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files). In version 1 it has a
    file for each of the two numbers, and -1 is no quota
    (https://docs.kernel.org/scheduler/sched-bwc.html).
    """
    quotas = []
    for folder in _groups(system):
        try:
            if (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text()
                period = (folder / "cpu.cfs_period_us").read_text()
            cores = int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue  # no quota, or no such interface
        if cores > 0:
            quotas.append(cores)
    return min(quotas, default=None)


def _groups(system: Path) -> Iterator[Path]:
    """The folders of this process's control groups for processors, and those of all groups above
    them that can be seen from here (see cgroups(7) and proc_pid_mountinfo(5))."""
    try:
        paths = {}  # by kind of file system
        for line in (system / "proc/self/cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            if not controllers:
                paths["cgroup2"] = path
            elif "cpu" in controllers.split(","):
                paths["cgroup"] = path
        for line in (system / "proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            kind, *_, options = after.split()
            if kind not in paths or (kind == "cgroup" and "cpu" not in options.split(",")):
                continue
            root, mount_point = (_unescaped(field) for field in before.split()[3:5])
            # A part of the hierarchy may be mounted, with the container's own group on top.
            mine = Path(os.path.normpath(paths[kind]))
            below = mine.relative_to(root) if mine.is_relative_to(root) else Path()
            folder = system / mount_point.lstrip("/")
            yield folder
            for part in below.parts:
                folder /= part
                yield folder
    except (OSError, ValueError):
        return  # no such files here, or of another form


def _unescaped(field: str) -> str:
    """A field of mountinfo: blanks are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
