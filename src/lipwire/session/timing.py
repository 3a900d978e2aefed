"""Where the time of a render goes, stage by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Stage = Literal["audio", "crop", "network", "compose", "encode"]
"""In the order of one frame's life. ``audio`` includes the audio encoder's network."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """What one stage took in all, over all threads that worked in it."""

    wall_ms: float
    cpu_ms: float  # of the threads that called the stage, not of threads that it starts itself


class Stopwatch:
    """Adds up the time of each stage. Any thread may measure, also several at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[Stage, StageTime] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Count the time inside the block for ``stage``, also when it ends with an error."""
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            wall_ms = (time.perf_counter() - wall_s) * 1000.0
            cpu_ms = (time.thread_time() - cpu_s) * 1000.0
            with self._lock:
                so_far = self._times.get(stage, StageTime(0.0, 0.0))
                self._times[stage] = StageTime(so_far.wall_ms + wall_ms, so_far.cpu_ms + cpu_ms)

    def times(self) -> dict[Stage, StageTime]:
        """A copy of the sums up to now."""
        with self._lock:
            return dict(self._times)
