"""Whose frames are next: the first class that waits; in it turns of tenants, and of their keys.

Turns are deficit round robin (Shreedhar and Varghese, 1995) on two levels. Tenants with work take
turns, and within a tenant's turns its keys do. A turn is worth ``quantum`` frames on either level,
and what could not be used of a turn may be used in the next one, as long as there is work. So each
of n tenants gets a n-th of the workers, and of that each of its m keys a m-th, whatever the others
ask for, however many keys they have and however large their requests are. Who is alone gets all.

A tenant that asks for much goes after those who do not: of the frames that wait and those that were
run of late, it has more than one and a half times its equal share. Of what is run it is sure of
half an equal share all the same. So who asks for much waits for those who ask for little, and not
they for him.

Live jobs are in the order of their deadlines (``DeadlineQueue``).
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Final, Generic

from lipwire.domain import SERVICES, Service
from lipwire.scheduling.deadlines import DeadlineQueue
from lipwire.scheduling.jobs import Job, K, MayJoin, Piece

_MUCH: Final = 1.5
"""A tenant that has asked for more than so many equal shares yields to others..."""
_SURE: Final = 0.5
"""...unless it has had at most so many: that much it gets in any case."""
_MEMORY_FRAMES: Final = 800
"""A frame counts 1/e after so many more, of all tenants: 32 s of video."""
_FEW: Final = 0.02
"""A tenant with less than this part of all frames counts as a part of one."""
_REMEMBERED: Final = 1000
"""Tenants whose frames are counted, the latest ones."""
_LONGEST: Final = 20.0
"""More memories than this at once leave nothing of what was before, and could not be computed."""
_LARGEST_UNIT: Final = 1e100
"""Then all counts are made small again."""


class FairQueue(Generic[K]):
    """A queue of jobs (requests for frames, ``Job``) in the order in which they are to be run. Not
    thread-safe; it does not know the time.

    Live jobs come first, by deadline; then those of class batch, then those of class render. Within
    these two, tenants take turns of some frames, and within a tenant's turns its keys do (a job's
    key names the network that is run). A tenant that asks for much goes after those that do not:
    one that has more than one and a half times an equal share of the frames that wait and that were
    run lately, once it was given half an equal share.
    """

    def __init__(self, quantum: int) -> None:
        """``quantum`` is how many frames of a tenant are run in one turn of that tenant, and how
        many frames of a key in one turn of that key."""
        self._classes: Final[dict[Service, DeadlineQueue[K] | TenantTurns[K]]] = {
            service: DeadlineQueue() if service == "live" else TenantTurns(quantum)
            for service in SERVICES
        }

    def __len__(self) -> int:
        """Jobs of which any frame waits."""
        return sum(waiting.jobs for waiting in self._classes.values())

    def __iter__(self) -> Iterator[Job[K]]:
        """All jobs; nothing may be changed meanwhile."""
        for waiting in self._classes.values():
            yield from waiting

    @property
    def frames(self) -> int:
        """How many frames wait, those of all jobs."""
        return sum(waiting.frames for waiting in self._classes.values() if waiting.jobs)

    def jobs_of(self, service: Service) -> int:
        """Return how many jobs of class ``service`` wait: those of which at least one frame
        waits."""
        return self._classes[service].jobs

    def frames_of(self, service: Service) -> int:
        """Return how many frames wait, of all jobs of class ``service``."""
        return self._classes[service].frames

    def frames_by_key(self) -> dict[K, int]:
        """Return how many frames wait of each key, of all classes together; keys of which none
        waits are left out."""
        frames: dict[K, int] = {}
        for waiting in self._classes.values():
            if waiting.jobs:
                for key, count in waiting.frames_by_key().items():
                    frames[key] = frames.get(key, 0) + count
        return frames

    def frames_before(self, job: Job[K]) -> Iterator[tuple[K, float]]:
        """Yield keys, perhaps more than once, and how many frames of each would be run before the
        last one of ``job``, were it added now and nothing else after it. The frames of ``job`` are
        not among them; fractions of frames are possible."""
        for service, waiting in self._classes.items():
            if service == job.service:
                yield from waiting.frames_before(job).items()
                return
            if waiting.jobs:
                yield from waiting.frames_by_key().items()

    def push(self, job: Job[K]) -> None:
        """Add ``job``: a live one by its deadline, any other behind the jobs of its tenant and key.
        A key and a tenant that had none get their turns after all others."""
        self._classes[job.service].push(job)

    def remove(self, job: Job[K]) -> bool:
        """Remove ``job``, with those of its frames that were not taken yet. Returns whether it was
        in the queue."""
        return self._classes[job.service].remove(job)

    def newest_of_longest_line(
        self, rather_than: K, tenant: str = "", service: Service = "batch"
    ) -> Job[K] | None:
        """Return the job that is to be refused, in a full queue, instead of a new job of class
        ``service`` and of ``tenant`` with key ``rather_than``; None where the new job is to be
        refused.

        The classes are live, batch and render, in this order. Where jobs of later classes than
        ``service`` wait, it is a job of the last of these classes. Otherwise, where the tenant with
        most jobs has more than ``tenant`` would have with the new job, it is a job of that tenant
        that was not begun: the last job of the key with most jobs, or, of live jobs, the one with
        the latest deadline. Where no tenant has more, and ``service`` is not live, it is the last
        job of the key of ``tenant`` with most jobs, if that key has more than ``rather_than`` would
        have.
        """
        for other in reversed(SERVICES):
            waiting = self._classes[other]
            if other == service:
                return waiting.newest_of_longest_line(rather_than, tenant)
            if waiting.jobs and isinstance(waiting, TenantTurns):
                return waiting.newest()
        return None

    def head(self) -> Job[K] | None:
        """Return the job that ``take`` would begin with; None where nothing waits."""
        for waiting in self._classes.values():
            if waiting.jobs:
                return waiting.head()
        return None

    def take(
        self,
        most: int,
        may_join: MayJoin[K],
        group: Callable[[K], Hashable | None] = lambda key: None,
    ) -> list[Piece[K]]:
        """Remove the frames to be run next from the queue, and return them as pieces of jobs, all
        of the first class that waits; an empty list where nothing waits.

        ``most`` is how many frames are returned at most. They begin with those of the tenant and
        key whose turn it is, or, of live ones, of the job with the earliest deadline. The rest is
        taken, in the order of turns or deadlines, of other keys of the same group: ``group(key)``
        returns a value that is equal for keys that may share a run, or None for a key that may
        share none. Frames of a further job are added only if they are shaped alike
        (``Job.shaped_like``) and ``may_join(pieces, job, frames)`` returns True. Its arguments are
        the pieces taken so far, the job, and how many of the job's frames would be added. Pieces of
        one tenant and key are neighbours, except of live jobs.
        """
        for waiting in self._classes.values():
            if waiting.jobs:
                return waiting.take(most, may_join, group)
        return []


@dataclass(slots=True)
class _Line(Generic[K]):
    """The jobs of one key of one tenant."""

    jobs: deque[Job[K]] = field(default_factory=deque)
    deficit: int = 0
    frames: int = 0


@dataclass(slots=True)
class _Tenant(Generic[K]):
    """A tenant's keys in the order of their turns, the first is next. A key without jobs is not in
    here."""

    lines: OrderedDict[K, _Line[K]] = field(default_factory=OrderedDict)
    deficit: int = 0
    jobs: int = 0
    frames: int = 0


class TenantTurns(Generic[K]):
    """A queue of jobs of one class, in turns of tenants, and within a tenant's turns in those of
    its keys (a job's key names the network that is run). A tenant that asks for much, by the frames
    that wait and that were run lately, goes after the others. Not thread-safe."""

    def __init__(self, quantum: int) -> None:
        """``quantum`` is how many frames of a tenant are run in one turn of that tenant, and how
        many frames of a key in one turn of that key."""
        self._quantum = quantum
        # In the order of their turns, the first is next. A tenant without jobs is not in here.
        self._tenants: OrderedDict[str, _Tenant[K]] = OrderedDict()
        self._had: Final = RecentFrames()
        self.jobs = 0
        """Jobs of which any frame waits. Not to be changed from outside."""
        self.frames = 0
        """How many frames wait, of all jobs together. Not to be changed from outside."""

    def __iter__(self) -> Iterator[Job[K]]:
        """All jobs; nothing may be changed meanwhile."""
        for tenant in self._tenants.values():
            for line in tenant.lines.values():
                yield from line.jobs

    def frames_by_key(self) -> dict[K, int]:
        """Return how many frames wait of each key, of all tenants together; keys of which none
        waits are left out."""
        frames: dict[K, int] = {}
        for tenant in self._tenants.values():
            for key, line in tenant.lines.items():
                frames[key] = frames.get(key, 0) + line.frames
        return frames

    def frames_before(self, job: Job[K]) -> dict[K, float]:
        """Return how many frames of each key would be run before the last one of ``job``, were it
        added now. Fractions are possible; the frames of ``job`` are not counted.

        These are all frames that wait of the job's tenant and key; of each other key of that tenant
        as many as of the job's key; and of each other tenant as many as of the job's tenant. Where
        tenants that ask for much go after the others, they are all frames of a tenant that goes
        before the job's, and none of a tenant that goes after it.
        """
        before: dict[K, float] = {}
        lines = self._tenants[job.tenant].lines if job.tenant in self._tenants else {}
        own = job.frames + (lines[job.key].frames if job.key in lines else 0)
        for key, line in lines.items():
            before[key] = line.frames if key == job.key else min(line.frames, own)
        share = job.frames + sum(before.values())
        yields = self._yields(job.tenant)
        for name, tenant in self._tenants.items():
            if name == job.tenant:
                continue
            part = min(1.0, share / tenant.frames)
            if yields != (other_yields := self._yields(name)):
                part = 0.0 if other_yields else 1.0
            for key, line in tenant.lines.items():
                before[key] = before.get(key, 0) + part * line.frames
        return before

    def push(self, job: Job[K]) -> None:
        """Add ``job`` behind the others of its tenant and key; a key and a tenant that had none get
        their turns after all others."""
        tenant = self._tenants.get(job.tenant)
        if tenant is None:
            tenant = self._tenants[job.tenant] = _Tenant()
        line = tenant.lines.get(job.key)
        if line is None:
            line = tenant.lines[job.key] = _Line()
        line.jobs.append(job)
        self._waits(tenant, line, job.left)
        tenant.jobs += 1
        self.jobs += 1

    def remove(self, job: Job[K]) -> bool:
        """Remove ``job``, with those of its frames that were not taken yet. Returns whether it was
        in the queue."""
        tenant = self._tenants.get(job.tenant)
        line = None if tenant is None else tenant.lines.get(job.key)
        if tenant is None or line is None or job not in line.jobs:
            return False
        line.jobs.remove(job)
        self._waits(tenant, line, -job.left)
        tenant.jobs -= 1
        self.jobs -= 1
        self._drop_if_empty(job.tenant, job.key)
        return True

    def newest(self) -> Job[K] | None:
        """Return the job that is to be refused where the queue is full and a job of an earlier
        class comes; None where nothing waits.

        It is the last job of the key with most jobs, of the tenant with most jobs. Keys whose last
        job was not begun are preferred to others.
        """
        lines = [line for tenant in self._longest_tenants() for line in tenant.lines.values()]
        waiting = [line for line in lines if not line.jobs[-1].taken]
        return _last_of_longest(waiting or lines)

    def newest_of_longest_line(self, rather_than: K, tenant: str) -> Job[K] | None:
        """Return the job that is to be refused, in a full queue, instead of a new job of ``tenant``
        with key ``rather_than``; None where the new job is to be refused.

        Where the tenant with most jobs has more than ``tenant`` would have with the new job, it is
        the last job of that tenant's key with most jobs, among those keys whose last job was not
        begun; None where there is no such key. Otherwise it is the last job of the key of
        ``tenant`` with most jobs, if these are more than ``rather_than`` would have; else None.
        """
        own = self._tenants.get(tenant)
        for longest in self._longest_tenants():
            if longest.jobs > (own.jobs if own else 0) + 1:
                waiting = [line for line in longest.lines.values() if not line.jobs[-1].taken]
                return _last_of_longest(waiting)
        if own is None:
            return None
        longer = len(own.lines[rather_than].jobs) + 1 if rather_than in own.lines else 1
        return _last_of_longest([line for line in own.lines.values() if len(line.jobs) > longer])

    def head(self) -> Job[K] | None:
        """Return the job that ``take`` would begin with; None where nothing waits."""
        if not self._tenants:
            return None
        first = next((name for name in self._tenants if not self._yields(name)), None)
        tenant = self._tenants[first if first is not None else next(iter(self._tenants))]
        return next(iter(tenant.lines.values())).jobs[0]

    def take(
        self,
        most: int,
        may_join: MayJoin[K],
        group: Callable[[K], Hashable | None] = lambda key: None,
    ) -> list[Piece[K]]:
        """Remove the frames to be run next from the queue, and return them as pieces of jobs; an
        empty list where nothing waits.

        ``most`` is how many frames are returned at most. They begin with those of the tenant and
        key whose turn it is. The rest is taken, in order of turns, of other keys of the same group:
        ``group(key)`` returns a value that is equal for keys that may share a run, or None for a
        key that may share none. Frames of a further job are added only if they are shaped alike
        (``Job.shaped_like``) and ``may_join(pieces, job, frames)`` returns True. Its arguments are
        the pieces taken so far, the job, and how many of the job's frames would be added.
        """
        head = self.head()
        if head is None:
            return []
        first = (head.tenant, head.key)
        pieces = self._take_of(*first, most, [], may_join)
        wanted = group(head.key)
        if wanted is None:
            return pieces
        room = most - sum(piece.frames for piece in pieces)
        for name, key in self._lines_of(wanted, group) if room > 0 else ():
            if room <= 0:
                break
            if (name, key) != first:
                taken = self._take_of(name, key, room, pieces, may_join)
                room -= sum(piece.frames for piece in taken)
                pieces += taken
        return pieces

    def _lines_of(
        self, wanted: Hashable, group: Callable[[K], Hashable | None]
    ) -> list[tuple[str, K]]:
        """Tenants and keys of group ``wanted``, in the order of their turns."""
        return [
            (name, key)
            for name, tenant in self._tenants.items()
            for key in tenant.lines
            if group(key) == wanted
        ]

    def _take_of(
        self, name: str, key: K, most: int, others: list[Piece[K]], may_join: MayJoin[K]
    ) -> list[Piece[K]]:
        """Up to ``most`` frames of tenant ``name`` and ``key``, in their turn, to be run with
        ``others``."""
        tenant = self._tenants[name]
        line = tenant.lines[key]
        alone = len(self._tenants) == 1  # then a tenant's turn has no end, and costs nothing
        if tenant.deficit <= 0:
            tenant.deficit += self._quantum
        if line.deficit <= 0:
            line.deficit += self._quantum
        room = min(most, line.deficit) if alone else min(most, line.deficit, tenant.deficit)
        pieces: list[Piece[K]] = []
        while room > 0 and line.jobs:
            job = line.jobs[0]
            count = min(job.left, room)
            before = others + pieces
            if before and not (job.shaped_like(before[0].job) and may_join(before, job, count)):
                break
            pieces.append(Piece(job, job.taken, job.taken + count))
            job.taken += count
            room -= count
            line.deficit -= count
            self._waits(tenant, line, -count)
            self._had.add(name, count)
            if not alone:
                tenant.deficit -= count
            if job.left == 0:
                line.jobs.popleft()
                tenant.jobs -= 1
                self.jobs -= 1
        if line.deficit <= 0:
            tenant.lines.move_to_end(key)
        if tenant.deficit <= 0:
            self._tenants.move_to_end(name)
        self._drop_if_empty(name, key)
        return pieces

    def _waits(self, tenant: _Tenant[K], line: _Line[K], more: int) -> None:
        """Count that many ``more`` frames as waiting, or fewer where it is negative."""
        line.frames += more
        tenant.frames += more
        self.frames += more

    def _drop_if_empty(self, name: str, key: K) -> None:
        tenant = self._tenants[name]
        if not tenant.lines[key].jobs:
            del tenant.lines[key]
        if not tenant.lines:
            del self._tenants[name]

    def _yields(self, name: str) -> bool:
        """Whether tenant ``name`` goes after those who do not ask for much."""
        had, tenants = self._had.of(name), max(self._had.tenants, len(self._tenants))
        waiting = self._tenants[name].frames if name in self._tenants else 0
        asked, all_asked = had + waiting, self._had.all + self.frames
        return asked * tenants > _MUCH * all_asked and had * tenants > _SURE * self._had.all

    def _longest_tenants(self) -> list[_Tenant[K]]:
        """The tenant with most jobs; none where nothing waits."""
        if not self._tenants:
            return []
        return [max(self._tenants.values(), key=lambda tenant: tenant.jobs)]


def _last_of_longest(lines: list[_Line[K]]) -> Job[K] | None:
    """The last job of the line with most jobs, of equal ones that whose turn is last."""
    if not lines:
        return None
    return max(reversed(lines), key=lambda line: len(line.jobs)).jobs[-1]


class RecentFrames:
    """Counts the latest frames that tenants had, and forgets them gradually: a frame counts 1 at
    first, and 1/e (0.37) after 800 further frames of any tenant. The latest 1000 tenants are known
    by name. Not thread-safe."""

    def __init__(self) -> None:
        self._unit = 1.0
        """What the memory's frames count now. It grows, so that earlier ones count less."""
        self._all = 0.0
        self._of: OrderedDict[str, float] = OrderedDict()
        """By tenant; the one that had a frame last is last."""
        self._large: set[str] = set()
        """The tenants with 2 % of all frames, or more."""
        self.tenants = 0.0
        """How many tenants the frames are of; those with less than 2 % each count as so many as
        would have 2 %. Not to be changed from outside."""

    @property
    def all(self) -> float:
        """The weighted count of the frames of all tenants together, 0 to 800."""
        return self._all / self._unit * _MEMORY_FRAMES

    def of(self, tenant: str) -> float:
        """Return how many of the frames in ``all`` are of ``tenant``, weighted in the same way, 0
        to 800; 0 where the tenant is not known."""
        return self._of.get(tenant, 0.0) / self._unit * _MEMORY_FRAMES

    def add(self, tenant: str, frames: int) -> None:
        """Count ``frames`` more, 1 or more, of ``tenant``; what was counted before counts less from
        then on."""
        # As if they had come one after the other; of very many the last ones count alone.
        before, passed = self._unit, min(frames / _MEMORY_FRAMES, _LONGEST)
        self._unit *= math.exp(passed)
        counted = self._unit - before
        self._of[tenant] = self._of.pop(tenant, 0.0) + counted
        self._all += counted
        if len(self._of) > _REMEMBERED:
            forgotten, _ = self._of.popitem(last=False)
            self._large.discard(forgotten)
        if self._unit > _LARGEST_UNIT:
            self._make_small()
        least = _FEW * self._all
        self._large = {name for name in {*self._large, tenant} if self._of[name] >= least}
        small = max(0.0, self._all - sum(self._of[name] for name in self._large))
        self.tenants = len(self._large) + small / least

    def _make_small(self) -> None:
        for name in self._of:
            self._of[name] /= self._unit
        self._all /= self._unit
        self._unit = 1.0
