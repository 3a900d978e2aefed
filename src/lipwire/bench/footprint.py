"""What a process holds, as Linux tells it: memory, threads, files; and whether that grows."""

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.domain import DependencyMissing, NotFound

_KIBI: Final = 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process held at one moment. ``resident_bytes`` is its memory, pages of mapped files
    included; ``proportional_bytes`` is the same with each page divided between the processes that
    share it (0 where it was not asked for); ``own_bytes`` is the part that belongs to no file; and
    ``peak_bytes`` is the most that was ever resident. ``threads``, ``files`` (open descriptors) and
    ``maps`` (mapped regions) are counts."""

    resident_bytes: int
    """Pages in memory, those of mapped files included."""
    proportional_bytes: int
    """The same, each page divided by the processes that have it; 0 where it was not asked for."""
    own_bytes: int
    """Memory that no file stands behind: what a program leaks."""
    peak_bytes: int
    """The most that was resident at any time."""
    threads: int
    files: int
    """Open file descriptors."""
    maps: int
    """Mapped regions, of which every opened avatar has some."""


def footprint(pid: int, *, proportional: bool = False) -> Footprint:
    """Return what process ``pid`` holds now. With ``proportional``, ``proportional_bytes`` is
    measured too, which takes the kernel milliseconds; it is 0 otherwise.

    Raises NotFound where there is no such process, DependencyMissing where the system has no /proc.
    """
    folder = Path("/proc") / str(pid)
    try:
        status = _numbers((folder / "status").read_text())
        files = len(os.listdir(folder / "fd"))  # noqa: PTH208 - names are all that is needed
        maps = (folder / "maps").read_bytes().count(b"\n")
        shared = _numbers((folder / "smaps_rollup").read_text()) if proportional else {}
    except OSError:
        if not Path("/proc/self/status").exists():
            raise DependencyMissing("footprints of processes need Linux's /proc") from None
        raise NotFound(f"there is no process {pid}") from None
    if "VmRSS" not in status:  # it has ended, and nobody has asked for its exit code yet
        raise NotFound(f"process {pid} has ended")
    return Footprint(
        resident_bytes=status["VmRSS"] * _KIBI,
        proportional_bytes=shared.get("Pss", 0) * _KIBI,
        own_bytes=status["RssAnon"] * _KIBI,
        peak_bytes=status["VmHWM"] * _KIBI,
        threads=status["Threads"],
        files=files,
        maps=maps,
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """How a figure has changed: its median in the first third (``first``) and in the last third
    (``last``) of what was seen, and its ``slope`` by least squares, in units of the figure for one
    unit of progress."""

    first: float
    last: float
    slope: float
    """By least squares, in units of the figure for one unit of progress."""

    @property
    def change(self) -> float:
        """By how much the last third lies above the first, in the figure's unit; below 0 where it
        shrank."""
        return self.last - self.first


def growth(seen: Sequence[tuple[float, Footprint]], figure: Callable[[Footprint], float]) -> Growth:
    """Return how a figure of a process has changed over ``seen``, at least three pairs of progress
    and the footprint at that time. Progress is any count that rises, such as answered requests.

    ``figure(footprint)`` returns the number that is looked at, for example ``footprint.threads``.
    """
    progress = [at for at, _ in seen]
    values = [figure(footprint) for _, footprint in seen]
    third = len(values) // 3
    slope = statistics.linear_regression(progress, values).slope
    return Growth(statistics.median(values[:third]), statistics.median(values[-third:]), slope)


def _numbers(text: str) -> dict[str, int]:
    """The lines "Name:  12 kB" of a file in /proc."""
    words = (line.split() for line in text.splitlines())
    return {
        line[0].removesuffix(":"): int(line[1])
        for line in words
        if len(line) > 1 and line[1].isdigit()
    }
