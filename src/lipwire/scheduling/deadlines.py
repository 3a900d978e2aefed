"""Which live frames are next: those whose deadline is first."""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import groupby
from math import inf
from typing import Generic

from lipwire.scheduling.jobs import Job, K, MayJoin, Piece


class DeadlineQueue(Generic[K]):
    """A queue of jobs (requests for frames, ``Job``) in which the one with the earliest deadline is
    run first. Not thread-safe; it does not know the time.

    Where deadlines are equal, tenants take turns. Jobs without a deadline come last, in the order
    in which they came.
    """

    def __init__(self) -> None:
        self._waiting: list[Job[K]] = []  # by deadline, and of equal ones as they came
        self._jobs_of: Counter[str] = Counter()  # by tenant
        self._turns: dict[str, int] = {}  # when each tenant with jobs last had one
        self._turn = 0
        self.jobs = 0
        """Jobs of which any frame waits. Not to be changed from outside."""

    def __iter__(self) -> Iterator[Job[K]]:
        """All jobs; nothing may be changed meanwhile."""
        return iter(self._waiting)

    @property
    def frames(self) -> int:
        """How many frames wait, of all jobs together."""
        return sum(job.left for job in self._waiting)

    def frames_by_key(self) -> dict[K, int]:
        """Return how many frames wait of each key (a job's key names the network that is run); keys
        of which none waits are left out."""
        return _by_key(self._waiting)

    def frames_before(self, job: Job[K]) -> dict[K, float]:
        """Return how many frames of each key (a job's key names the network that is run) would be
        run before the frames of ``job``, were it added now and nothing else after it: the frames of
        jobs with the same deadline or an earlier one; of all jobs where ``job`` has no deadline.
        Keys without such frames are left out."""
        until = _deadline(job)
        return {**_by_key(other for other in self._waiting if _deadline(other) <= until)}

    def push(self, job: Job[K]) -> None:
        """Add ``job`` by its deadline, with those of its frames that were not taken yet."""
        insort(self._waiting, job, key=_deadline)
        self._jobs_of[job.tenant] += 1
        self.jobs += 1

    def remove(self, job: Job[K]) -> bool:
        """Remove ``job``, with those of its frames that were not taken yet. Returns whether it was
        in the queue."""
        if job not in self._waiting:
            return False
        self._waiting.remove(job)
        self.jobs -= 1
        self._jobs_of[job.tenant] -= 1
        if not self._jobs_of[job.tenant]:
            del self._jobs_of[job.tenant]
            self._turns.pop(job.tenant, None)
        return True

    def newest_of_longest_line(self, rather_than: K, tenant: str) -> Job[K] | None:
        """Return the job that is to be refused, in a full queue, instead of a new job of
        ``tenant``: of the jobs of the tenant with most jobs that were not begun, the one with the
        latest deadline. It stays in the queue.

        None where there is no such job, or where the tenant with most jobs has no more than
        ``tenant`` would have with one more: then the new job is to be refused. ``rather_than``, the
        new job's key, makes no difference here.
        """
        if not self._jobs_of:
            return None
        longest, jobs = max(self._jobs_of.items(), key=lambda item: item[1])
        if jobs <= self._jobs_of[tenant] + 1:
            return None
        last = (job for job in reversed(self._waiting) if job.tenant == longest and not job.taken)
        return next(last, None)

    def head(self) -> Job[K] | None:
        """Return the job that ``take`` would begin with; None where nothing waits."""
        return next(self._in_order(), None)

    def take(
        self,
        most: int,
        may_join: MayJoin[K],
        group: Callable[[K], Hashable | None] = lambda key: None,
    ) -> list[Piece[K]]:
        """Remove the frames to be run next from the queue, and return them as pieces of jobs; an
        empty list where nothing waits.

        ``most`` is how many frames are returned at most. They begin with those of the job with the
        earliest deadline. The rest is taken, in order of deadline, of other jobs that have the same
        key or whose key is of the same group: ``group(key)`` returns a value that is equal for keys
        that may share a run, or None for a key that may share none. Frames of such a job are taken
        only if they are shaped alike (``Job.shaped_like``) and ``may_join(pieces, job, frames)``
        returns True. Its arguments are the pieces taken so far, the job, and how many of the job's
        frames would be added. Pieces of one key need not be neighbours.
        """
        pieces: list[Piece[K]] = []
        room = most
        wanted: Hashable | None = None
        for job in list(self._in_order()):
            count = min(job.left, room)
            if not pieces:
                wanted = group(job.key)
            else:
                first = pieces[0].job
                if job.key != first.key and (wanted is None or group(job.key) != wanted):
                    continue
                if not (job.shaped_like(first) and may_join(pieces, job, count)):
                    continue
            pieces.append(Piece(job, job.taken, job.taken + count))
            job.taken += count
            room -= count
            self._turn += 1
            self._turns[job.tenant] = self._turn
            if not job.left:
                self.remove(job)
            if not room:
                break
        return pieces

    def _in_order(self) -> Iterator[Job[K]]:
        for deadline, group in groupby(self._waiting, _deadline):
            tied = list(group)
            if len(tied) > 1 and deadline != inf:
                of_tenant: Counter[str] = Counter()
                turns: list[tuple[int, int, int]] = []
                for number, job in enumerate(tied):
                    turns.append((of_tenant[job.tenant], self._turns.get(job.tenant, 0), number))
                    of_tenant[job.tenant] += 1
                tied = [tied[number] for _, _, number in sorted(turns)]
            yield from tied


def _deadline(job: Job[K]) -> float:
    return inf if job.deadline is None else job.deadline


def _by_key(jobs: Iterable[Job[K]]) -> dict[K, int]:
    frames: dict[K, int] = {}
    for job in jobs:
        frames[job.key] = frames.get(job.key, 0) + job.left
    return frames
