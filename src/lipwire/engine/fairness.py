"""Whose frames are next: deficit round robin over keys (Shreedhar and Varghese, 1995).

Every key with work has a line of its own. Keys take turns; a turn is worth ``quantum`` frames, and
what a key could not use of its turn it may use in its next one, as long as it has work. So each of
n keys gets a n-th of the workers, whatever the others ask for and however large their requests are,
and a key alone gets all.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from lipwire.engine.jobs import Job, Piece

K = TypeVar("K", bound=Hashable)


class FairQueue(Generic[K]):
    """Jobs that wait. Not thread-safe, does not know the time."""

    def __init__(self, quantum: int) -> None:
        self._quantum = quantum
        # Keys in the order of their turns, the first is next. A key without jobs is not in here.
        self._lines: OrderedDict[K, deque[Job[K]]] = OrderedDict()
        self._deficits: dict[K, int] = {}
        self._frames: dict[K, int] = {}
        self._jobs = 0

    def __len__(self) -> int:
        """Jobs of which any frame waits."""
        return self._jobs

    def __iter__(self) -> Iterator[Job[K]]:
        """All jobs; nothing may be changed meanwhile."""
        for line in self._lines.values():
            yield from line

    @property
    def frames(self) -> int:
        return sum(self._frames.values())

    def frames_by_key(self) -> dict[K, int]:
        """Frames that wait, of each key that has any."""
        return dict(self._frames)

    def push(self, job: Job[K]) -> None:
        """To the end of its key's line; a new key has its turn after all others."""
        line = self._lines.get(job.key)
        if line is None:
            line = self._lines[job.key] = deque()
            self._deficits[job.key] = 0
            self._frames[job.key] = 0
        line.append(job)
        self._frames[job.key] += job.left
        self._jobs += 1

    def remove(self, job: Job[K]) -> bool:
        """Take a job out wherever it stands; whether it was in here."""
        line = self._lines.get(job.key)
        if line is None or job not in line:
            return False
        line.remove(job)
        self._jobs -= 1
        self._frames[job.key] -= job.left
        self._drop_if_empty(job.key)
        return True

    def newest_of_longest_line(self, rather_than: K) -> Job[K] | None:
        """The last job of the key with most jobs, if they are more than ``rather_than`` would have
        with one more. Jobs that were begun are not given up."""
        if not self._lines:
            return None
        key = max(self._lines, key=lambda key: len(self._lines[key]))
        line = self._lines[key]
        if len(line) <= len(self._lines.get(rather_than, ())) + 1 or line[-1].taken:
            return None
        return line[-1]

    def take(
        self,
        most: int,
        may_join: Callable[[list[Piece[K]], Job[K], int], bool],
        group: Callable[[K], Hashable | None] = lambda key: None,
    ) -> list[Piece[K]]:
        """Up to ``most`` frames of the key whose turn it is, empty where nothing waits.

        More than one job's only where ``may_join(pieces, job, frames)`` agrees to each one more.
        What is left of ``most`` is for other keys of its ``group``, unless that is None, in the
        order of their turns. Pieces of one key stand together.
        """
        if not self._lines:
            return []
        first = next(iter(self._lines))
        pieces = self._take_of(first, most, [], may_join)
        wanted = group(first)
        if wanted is None:
            return pieces
        room = most - sum(piece.frames for piece in pieces)
        for key in [key for key in self._lines if key != first and group(key) == wanted]:
            if room <= 0:
                break
            taken = self._take_of(key, room, pieces, may_join)
            room -= sum(piece.frames for piece in taken)
            pieces += taken
        return pieces

    def _take_of(
        self,
        key: K,
        most: int,
        others: list[Piece[K]],
        may_join: Callable[[list[Piece[K]], Job[K], int], bool],
    ) -> list[Piece[K]]:
        """Up to ``most`` frames of ``key``, in its turn, to be run with ``others``."""
        line = self._lines[key]
        if self._deficits[key] <= 0:
            self._deficits[key] += self._quantum
        room = min(most, self._deficits[key])
        pieces: list[Piece[K]] = []
        while room > 0 and line:
            job = line[0]
            count = min(job.left, room)
            before = others + pieces
            if before and not (job.shaped_like(before[0].job) and may_join(before, job, count)):
                break
            pieces.append(Piece(job, job.taken, job.taken + count))
            job.taken += count
            room -= count
            self._deficits[key] -= count
            self._frames[key] -= count
            if job.left == 0:
                line.popleft()
                self._jobs -= 1
        if line and self._deficits[key] <= 0:
            self._lines.move_to_end(key)
        self._drop_if_empty(key)
        return pieces

    def head(self) -> Job[K] | None:
        """The job that ``take`` would begin with."""
        for line in self._lines.values():
            return line[0]
        return None

    def _drop_if_empty(self, key: K) -> None:
        if not self._lines[key]:
            del self._lines[key], self._deficits[key], self._frames[key]
