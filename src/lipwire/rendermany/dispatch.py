"""Who renders what: no job twice, and an avatar's jobs where the avatar is open already."""

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final

from lipwire.rendermany.jobs import RenderJob

ATTEMPTS: Final = 3
"""How often a job is given to a worker before it is blamed for the workers' ends."""


class Dispatch:
    """Jobs that wait for workers, and those that workers have. For one thread. It neither starts
    workers nor talks to them: the caller passes on the jobs that ``give`` returns, and reports how
    they ended with ``finished`` and ``lost``.

    Workers are told apart by their names, texts that whoever starts them chooses
    (``Happened.worker``); a name is new to it when it is first given a job. A worker gets jobs of
    the avatar that it had last, while there are any; else of the avatar that has the most waiting
    jobs for each worker that is working on it.
    """

    def __init__(self, jobs: Iterable[RenderJob], *, attempts: int = ATTEMPTS) -> None:
        """``jobs`` are given out, each ``attempts`` times at most in all: again where the worker
        that had the job was lost."""
        self._waiting: dict[str, deque[RenderJob]] = {}
        for job in jobs:
            self._waiting.setdefault(job.avatar, deque()).append(job)
        self._attempts = attempts
        self._given: Counter[RenderJob] = Counter()
        self._has: dict[str, RenderJob] = {}
        self._open: dict[str, str] = {}

    @property
    def left(self) -> int:
        """How many jobs are not over: those that wait, and those that workers have."""
        return len(self._has) + sum(map(len, self._waiting.values()))

    @property
    def waiting(self) -> int:
        """How many jobs wait for a worker, without those that workers have."""
        return sum(map(len, self._waiting.values()))

    def give(self, worker: str) -> RenderJob | None:
        """Return the job that the worker of the name ``worker`` is to do next, and count it as that
        worker's until ``finished`` or ``lost``; None where none waits. The worker must have no job
        now."""
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
        """Return the job of the worker ``worker``, and count it as over, whether it succeeded or
        failed. It is not given out again. Raises KeyError where the worker has no job."""
        return self._has.pop(worker)

    def lost(self, worker: str) -> RenderJob | None:
        """Record that the worker ``worker`` has ended and takes no more jobs. Its job waits again,
        before the others of the same avatar, and None is returned; but a job that was given out as
        often as is allowed is over, and is returned. None is also returned where the worker had no
        job."""
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
