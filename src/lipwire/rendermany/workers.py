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
    """How a job went. Where ``error`` is empty the video is finished: it has ``frames`` frames,
    lasts ``video_s`` seconds and takes ``size_bytes``; ``warnings`` are lines for whoever ordered
    it. Else ``error`` is a line that says what was in the way, and the numbers are 0."""

    error: str = ""
    frames: int = 0
    video_s: float = 0.0
    size_bytes: int = 0
    warnings: tuple[str, ...] = ()


class JobWorker:
    """Renders one job after the other in this process, and keeps the last job's avatar open. For
    one thread; whoever makes it calls ``close``. Another thread or a signal handler may set the
    event ``ending``, which stops the job under way."""

    def __init__(
        self,
        settings: RenderSettings,
        *,
        threads: int = 1,
        ending: threading.Event | None = None,
    ) -> None:
        """``settings`` say how all videos are made; networks are computed by ``threads`` cores.
        When ``ending`` is set (None: never), the job under way is stopped at its next frame."""
        self._settings = settings
        self._threads = threads
        self._ending = ending or threading.Event()
        self._avatar: tuple[str, TalkingAvatar] | None = None

    def run(self, job: RenderJob) -> JobResult:
        """Render ``job``, write its video, and return how it went; waits until it is over. Any
        failure is in the result's ``error``, even a fault of the program. Raises SystemExit where
        the event ``ending`` is set meanwhile; the video is then not written."""
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
        """Close the avatar that is open, if any. Closing twice is allowed."""
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
    """What happened to the worker of the name ``worker``. ``what`` is "ready" where the worker
    waits for its first job; "finished" where its job is over, and ``result`` says how the job went;
    "lost" where the worker has ended, with its job if it had one, and ``reason`` says why in a
    line. ``result`` has a meaning only for "finished", ``reason`` only for "lost"."""

    worker: str
    what: Literal["ready", "finished", "lost"]
    result: JobResult = JobResult()
    reason: str = ""


class Workers(Protocol):
    """Workers somewhere: ``LocalWorkers`` on this machine, ``RayWorkers`` on a cluster. For one
    thread.

    Each worker has a name, made here: the caller learns it from ``happened`` when the worker is
    ready, and gives it jobs by that name, one at a time. Where a worker is lost, another one is
    started in its place, under a new name, and ``happened`` reports it as ready.
    """

    def happened(self, timeout_s: float) -> list[Happened]:
        """Return what has happened to workers since the last call. Where nothing has, waits until
        something does, at most ``timeout_s`` seconds; an empty list where nothing did. Raises
        Unavailable where workers end as soon as they are started, or are of another version of
        Lipwire."""
        ...

    def give(self, worker: str, job: RenderJob) -> None:
        """Have the worker of the name ``worker`` render ``job``, and return at once; ``happened``
        reports the end. ``worker`` is a name that ``happened`` has reported as ready or finished;
        the worker has no job now. Raises KeyError for any other name. A worker that has ended
        meanwhile is no error here: ``happened`` reports that it is lost."""
        ...

    def close(self) -> None:
        """End all workers, and what they do; a video that is not finished leaves nothing. Closing
        twice is allowed."""
        ...
