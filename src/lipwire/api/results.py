"""What a render made, and how it is measured."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lipwire.domain import FPS
from lipwire.engine.graphs import FloatType
from lipwire.session import Stage, StageTime, Stopwatch


@dataclass(frozen=True, slots=True)
class RenderResult:
    """What a render made and how fast: the file or folder that was written (``path``; None for an
    open file), the number of ``frames`` and the seconds of video that they last (``video_s``), the
    seconds that it took (``elapsed_s``) and this process's processor time (``cpu_s``), the bytes
    written (``size_bytes``), the time of each stage by its name (``stages``: "audio", "crop",
    "network", "compose", "encode"), the ``precision`` that the network ran in ("float32" or
    "bfloat16"), and ``warnings`` for the user, a line each."""

    path: Path | None  # None: it went into an open file
    frames: int
    video_s: float
    elapsed_s: float  # speech to finished file, without opening and compiling the avatar
    cpu_s: float  # of all threads of this process in that time
    size_bytes: int
    stages: dict[Stage, StageTime]
    precision: FloatType = "float32"
    warnings: tuple[str, ...] = ()
    """One line for each thing that was noticed and is not right: in the recording (see
    ``open_recording``), or a mouth that stays shut under loud sound."""

    @property
    def fps(self) -> float:
        """Frames made in each second that the render took (``elapsed_s``)."""
        return self.frames / self.elapsed_s


class Clock:
    """Measures the time of one render, from when the object is made to ``result``. A stage is
    timed by doing it in a block ``with clock.stopwatch.measure(stage)``, where ``stage`` is
    "audio", "crop", "network", "compose" or "encode"."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def result(
        self,
        path: Path | None,
        frames: int,
        size_bytes: int,
        precision: FloatType,
        warnings: tuple[str, ...],
    ) -> RenderResult:
        """Return the result of a render that ends now, timed since this clock was made.

        ``path`` is the file or folder that was written, None for an open file; ``frames`` is how
        many frames were made, ``size_bytes`` how much was written, ``precision`` what the network
        ran in, and ``warnings`` are lines for the user.
        """
        return RenderResult(
            path=path,
            frames=frames,
            video_s=frames / FPS,
            elapsed_s=time.perf_counter() - self._wall_s,
            cpu_s=time.process_time() - self._cpu_s,
            size_bytes=size_bytes,
            stages=self.stopwatch.times(),
            precision=precision,
            warnings=warnings,
        )
