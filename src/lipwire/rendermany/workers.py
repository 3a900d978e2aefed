"""What renders jobs, one after the other, and how it is told from outside."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from lipwire.domain import LipwireError
from lipwire.rendermany.jobs import RenderJob, RenderSettings

if TYPE_CHECKING:
    from lipwire.api import TalkingAvatar


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job went: the numbers of a video that is finished, or the ``error`` in its way, a line
    (empty: none)."""

    error: str = ""
    frames: int = 0
    video_s: float = 0.0
    size_bytes: int = 0
    warnings: tuple[str, ...] = ()


class JobWorker:
    """Renders one job after the other in this process, with the last one's avatar kept open."""

    def __init__(
        self,
        settings: RenderSettings,
        *,
        threads: int = 1,
        ending: threading.Event | None = None,
    ) -> None:
        """``settings`` are of all videos; networks are computed by ``threads`` cores. When
        ``ending`` is set, the job under way is left."""
        self._settings = settings
        self._threads = threads
        self._ending = ending or threading.Event()
        self._avatar: tuple[str, TalkingAvatar] | None = None

    def run(self, job: RenderJob) -> JobResult:
        """Render ``job``. Raises SystemExit where that was left, with nothing written, and else
        nothing: what is in the way is in the result."""
        try:
            avatar = self._opened(job.avatar)
            made = avatar.render(
                job.audio,
                job.out,
                start_frame=job.start_frame,
                preset=self._settings.preset,  # type: ignore[arg-type]  # checked by whoever asks
                crf=self._settings.crf,
                progress=self._go_on,
            )
            return JobResult("", made.frames, made.video_s, made.size_bytes, made.warnings)
        except LipwireError as error:
            return JobResult(str(error))
        except Exception as error:
            return JobResult(f"an internal fault: {type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the avatar that is open."""
        if self._avatar is not None:
            self._avatar[1].close()
            self._avatar = None

    def _go_on(self, _done: int, _total: int) -> None:
        if self._ending.is_set():
            raise SystemExit

    def _opened(self, name: str) -> TalkingAvatar:
        if self._avatar is not None and self._avatar[0] == name:
            return self._avatar[1]
        from lipwire.api import open_avatar

        self.close()
        opened = open_avatar(
            Path(name) if "/" in name or "\\" in name else name,
            outputs=("i420",),
            threads=self._threads,
            precision=self._settings.precision,  # type: ignore[arg-type]  # checked by whoever asks
        )
        self._avatar = (name, opened)
        return opened


@dataclass(frozen=True, slots=True)
class Happened:
    """What happened to ``worker``, a name: it is ready for its first job, has finished one, with
    ``result``, or is lost, because of ``reason``."""

    worker: str
    what: Literal["ready", "finished", "lost"]
    result: JobResult = JobResult()
    reason: str = ""


class Workers(Protocol):
    """Workers somewhere. Where one is lost, another one comes in its place by itself."""

    def happened(self, timeout_s: float) -> list[Happened]:
        """Wait until something happens, at most ``timeout_s`` seconds, and return it. Raises
        Unavailable where there are no workers to be had any more."""
        ...

    def give(self, worker: str, job: RenderJob) -> None:
        """Have ``worker``, which has no job, render ``job``."""
        ...

    def close(self) -> None:
        """End all workers; a video that is not finished leaves nothing."""
        ...
