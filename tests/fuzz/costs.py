"""What one input costs: memory at its peak, and processor time."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
MOST_BYTES: Final = 512 * MIB
"""The most by which an input may raise this process's memory while it is read. Inputs have some
kilobytes. FFmpeg may take 272 MiB at once for one (``lipwire.domain.media``), of which it has a
second table half as large; what is beyond was not limited by anybody."""

MOST_PROCESSOR_S: Final = 5.0
"""The most processor time that an input may take, in all threads: others of the machine do not
count. The slowest one that is known takes 0.6 s."""


@dataclass(slots=True)
class Cost:
    """Of one input."""

    grown_bytes: int = 0  # the peak above what there was before; 0 where the system does not tell
    processor_s: float = 0.0

    def memory_told(self) -> str:
        """What is wrong with the memory; empty where nothing is."""
        if self.grown_bytes <= MOST_BYTES:
            return ""
        return f"takes {self.grown_bytes // MIB} MiB; allowed are {MOST_BYTES // MIB}"

    def time_told(self) -> str:
        """What is wrong with the time; empty where nothing is."""
        if self.processor_s <= MOST_PROCESSOR_S:
            return ""
        return f"takes {self.processor_s:.1f} s of a processor; allowed are {MOST_PROCESSOR_S:g}"


@contextmanager
def measured() -> Iterator[Cost]:
    """The cost of the block, which is known at its end, however it ends."""
    cost = Cost()
    before = _forget_peak()
    began_s = time.process_time()
    try:
        yield cost
    finally:
        cost.processor_s = time.process_time() - began_s
        cost.grown_bytes = max(0, _status_bytes("VmHWM") - before)


def resident_bytes() -> int:
    """Memory of this process that is its own; 0 where the system does not tell."""
    return _status_bytes("RssAnon")


def _forget_peak() -> int:
    """Set this process's peak of memory to what it has, and return that."""
    if sys.platform == "linux":
        with suppress(OSError):  # the peak so far is what goes on then
            Path("/proc/self/clear_refs").write_bytes(b"5")  # proc(5)
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(name)), 0)
