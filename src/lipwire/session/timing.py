"""How much time each stage of a render takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Stage = Literal["audio", "crop", "network", "compose", "encode"]
"""The stages of a render, in the order in which a frame goes through them. ``audio`` includes the
audio encoder's network."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long one stage of a render took in all, in milliseconds, added up over all threads that
    worked in it. ``wall_ms`` is the time that passed in these threads, which may add up to more
    than the render took; ``cpu_ms`` is the processor time of these threads, without that of further
    threads that the stage itself starts."""

    wall_ms: float
    cpu_ms: float  # of the threads that called the stage, not of threads that it starts itself


class Stopwatch:
    """Adds up the time of each stage of a render ("audio", "crop", "network", "compose", "encode").
    Any thread may measure, also several at once."""

    def __init__(
        self,
        clock_s: Callable[[], float] = time.perf_counter,
        cpu_clock_s: Callable[[], float] = time.thread_time,
    ) -> None:
        """``clock_s`` gives seconds, ``cpu_clock_s`` the processor time of the calling thread in
        seconds."""
        self._clock_s = clock_s
        self._cpu_clock_s = cpu_clock_s
        self._lock = threading.Lock()
        self._times: dict[Stage, StageTime] = {}

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time of a ``with`` block to that of ``stage`` ("audio", "crop", "network",
        "compose" or "encode"), also where the block ends with an error. A context manager."""
        wall_s, cpu_s = self._clock_s(), self._cpu_clock_s()
        try:
            yield
        finally:
            wall_ms = (self._clock_s() - wall_s) * 1000.0
            cpu_ms = (self._cpu_clock_s() - cpu_s) * 1000.0
            with self._lock:
                so_far = self._times.get(stage, StageTime(0.0, 0.0))
                self._times[stage] = StageTime(so_far.wall_ms + wall_ms, so_far.cpu_ms + cpu_ms)

    def times(self) -> dict[Stage, StageTime]:
        """Return the time of each stage that was measured up to now, as a new dictionary. Stages
        that were never measured are not in it."""
        with self._lock:
            return dict(self._times)
