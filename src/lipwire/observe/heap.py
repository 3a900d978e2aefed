"""What Python's memory is held by, as tracemalloc counts it."""

from __future__ import annotations

import threading
import tracemalloc
from pathlib import Path
from typing import Final

_LINES: Final = 100
_STATUS: Final = Path("/proc/self/status")
_OWN: Final = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__))


def heap(seconds: float, ended: threading.Event) -> str:
    """Count what Python allocates for ``seconds`` seconds, and return a text that lists which lines
    of code allocated what is still held then: up to 100 lines, those with the most bytes first.

    Counting slows Python down, and stops when this returns. Returns early where ``ended`` is set.
    Where Python counts allocations already (PYTHONTRACEMALLOC), this does not wait, and lists all
    that were counted so far.
    """
    was_on = tracemalloc.is_tracing()
    if not was_on:
        tracemalloc.start()
        ended.wait(seconds)
    try:
        found = tracemalloc.take_snapshot().filter_traces(_OWN).statistics("lineno")
        traced_bytes, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        if not was_on:
            tracemalloc.stop()
    since = "since tracemalloc was turned on" if was_on else f"within {seconds:g} s"
    head = [
        f"allocated by Python {since} and still held: {traced_bytes} bytes (peak {peak_bytes})",
        "without what was allocated before, and without memory of libraries: networks, mapped",
        "avatars, video encoders; the whole process:",
        *_process(),
        "",
        f"{'bytes':>14} {'blocks':>9}  line",
    ]
    rows = [f"{each.size:>14} {each.count:>9}  {each.traceback[0]}" for each in found[:_LINES]]
    left = [f"and {len(found) - _LINES} more lines"] if len(found) > _LINES else []
    return "\n".join([*head, *rows, *left]) + "\n"


def _process() -> list[str]:
    """Lines of proc_pid_status(5) about memory."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return ["(the system does not tell)"]
    return [f"  {line}" for line in lines if line.startswith(("VmRSS", "VmHWM", "Rss"))]
