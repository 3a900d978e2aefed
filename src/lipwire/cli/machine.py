"""What a figure was measured on: processor, cores, versions."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


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
    """Cores this process may run on; a container's CPU set counts, not the host."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
