"""The machine: how many cores there are to use, and what a figure was measured on."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Machine", "describe_machine", "usable_cores"]


@dataclass(frozen=True, slots=True)
class Machine:
    """The part of the machine that decides speeds."""

    processor: str
    cores: int  # that this process may use
    system: str
    python: str
    packages: dict[str, str]

    def line(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        return f"{self.processor}, {cores}, {self.system}, Python {self.python}, {packages}"

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def describe_machine() -> Machine:
    """The machine this process runs on, without importing what it names."""
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


def usable_cores() -> int:
    """Cores this process may keep busy, at least 1.

    In a container that is its share and not the host's number: the CPU set and the quota of
    control groups (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files) count.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _quota_cores(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def _quota_cores(cpu_max: Path) -> float | None:
    """``cpu.max`` holds "max 100000" or "200000 100000": microseconds of work in a period."""
    try:
        quota, period = cpu_max.read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # no quota, or no such interface


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
