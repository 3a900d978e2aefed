"""Who renders what: no job twice, and an avatar's jobs where the avatar is open already."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from lipwire.rendermany.jobs import RenderJob

ATTEMPTS: Final = 3
"""How often a job is given to a worker before it is blamed for the workers' ends."""


class Dispatch:
    """Jobs that wait for workers, and those that workers have. For one thread.

    A worker goes on with the avatar that it has open; else it gets the avatar with the most jobs
    waiting for each worker that is at it.
    """

    def __init__(self, jobs: Iterable[RenderJob], *, attempts: int = ATTEMPTS) -> None:
        """``jobs`` are given out, each ``attempts`` times at most: again where the worker that had
        it was lost."""
        self._waiting: dict[str, deque[RenderJob]] = {}
        for job in jobs:
            self._waiting.setdefault(job.avatar, deque()).append(job)
        self._attempts = attempts
        self._given: Counter[RenderJob] = Counter()
        self._has: dict[str, RenderJob] = {}
        self._open: dict[str, str] = {}

    @property
    def left(self) -> int:
        """How many jobs wait, or are with workers."""
        return len(self._has) + sum(map(len, self._waiting.values()))

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker."""
        return sum(map(len, self._waiting.values()))

    def give(self, worker: str) -> RenderJob | None:
        """Return the next job of ``worker``, a name, which has none now; None where none waits."""
        avatar = self._open.get(worker)
        if avatar not in self._waiting:
            avatar = self._neediest()
        if avatar is None:
            return None
        jobs = self._waiting[avatar]
        job = jobs.popleft()
        if not jobs:
            del self._waiting[avatar]
        self._has[worker] = job
        self._open[worker] = avatar
        self._given[job] += 1
        return job

    def finished(self, worker: str) -> RenderJob:
        """Take back the job of ``worker``, which is over, well or not, and return it."""
        return self._has.pop(worker)

    def lost(self, worker: str) -> RenderJob | None:
        """Note that ``worker`` is gone. Its job waits again, before others; where it was given out
        as often as may be it is returned, and over."""
        self._open.pop(worker, None)
        job = self._has.pop(worker, None)
        if job is None:
            return None
        if self._given[job] >= self._attempts:
            return job
        self._waiting.setdefault(job.avatar, deque()).appendleft(job)
        return None

    def _neediest(self) -> str | None:
        at_it = Counter(self._open[worker] for worker in self._has)
        return max(
            self._waiting,
            key=lambda avatar: len(self._waiting[avatar]) / (1 + at_it[avatar]),
            default=None,
        )
