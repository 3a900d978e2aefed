"""What a scheduler decides: which requests it refuses, and which frames a free worker runs next, by
how long frames have taken lately.

There are no threads and no clock in here, so that the same decisions can be made in virtual time.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from statistics import median
from typing import Final, Generic

from lipwire.domain import SERVICES, DeadlineExceeded
from lipwire.scheduling import refusals
from lipwire.scheduling.fairness import FairQueue
from lipwire.scheduling.jobs import Job, K, Piece
from lipwire.scheduling.livereserve import LiveReserve, fits, frames_within
from lipwire.scheduling.schedulerstats import (
    NO_OBSERVER,
    Counts,
    Observer,
    SchedulerStats,
    stats_of,
)

_WEIGHT: Final = 0.25
"""Of the newest run in the running mean."""
_BELIEVED_S: Final = 5.0
"""A mean that no run has confirmed for this long counts half, and half again: one slow moment must
not refuse every request for ever, for refused requests measure nothing."""
_MAX_KEYS: Final = 4096
_RECENT: Final = 64
RECENT_S: Final = 60.0
"""How many runs of a key a median is taken of, and how old they may be."""

Refused = list[tuple[Job[K], Exception]]
"""Jobs that were taken out of the queue, each with the error that the caller is to end it with."""


class Dispatcher(Generic[K]):
    """The queue of a scheduler, and all that it decides about it, without threads or a clock:
    ``now`` is the present time in each method, in seconds of any one clock. Not thread-safe.

    The caller puts requests in with ``submit``. For a free worker it asks ``may_begin``, takes out
    with ``late_heads`` what has become too late, runs what ``take`` returns, and says so with
    ``ran`` and ``freed``. Workers are numbers that the caller gives them, each its own.
    """

    def __init__(
        self,
        *,
        workers: int,
        queue_size: int,
        max_run_frames: int,
        join: bool = False,
        group: Callable[[K], Hashable | None] | None = None,
        split: bool = True,
        observer: Observer = NO_OBSERVER,
    ) -> None:
        """There are ``workers``, and ``queue_size`` requests may wait. A run holds
        ``max_run_frames`` frames at most: of one request, with ``join`` also of several of one key,
        and with ``join`` and ``group`` of several keys; ``group(key)`` returns a value that is
        equal for keys that may share a run, or None for a key that may share none. ``split`` says
        that workers compute side by side, so that free ones may share the frames of a request. The
        methods of ``observer`` are called when requests are begun and after runs."""
        self.workers: Final = workers
        self.queue_size = queue_size
        self._max_run_frames = max_run_frames
        self._join = join
        self._group: Callable[[K], Hashable | None] = (
            (lambda key: None) if group is None or not join else group
        )
        self._split = split
        self._observer = observer
        self.queue: Final[FairQueue[K]] = FairQueue(max_run_frames)
        self.reserve: Final = LiveReserve(workers, split=split)
        self.counts: Final = Counts()
        self._times, self._live_times = ServiceTimes(), RecentTimes()
        self._ends_s: dict[int, float] = {}
        """When each busy worker is expected to be free."""
        self._others_run: set[int] = set()
        """Workers that are busy with requests that are not live."""

    @property
    def busy(self) -> int:
        """How many workers have been given frames by ``take`` and were not ``freed`` since."""
        return len(self._ends_s)

    def stats(self) -> SchedulerStats:
        """Return the scheduler's numbers at this moment, and its counts since this object was
        made."""
        return stats_of(self.queue, self.queue_size, self.busy, self.workers, self.counts)

    def live_frame_s(self, key: K, now: float) -> float | None:
        """Return how many seconds a frame of the network ``key`` takes: the median of its latest
        runs, 64 at most, that were for live requests or of a single frame, and ended within 60 s
        before ``now``. None where there was none."""
        return self._live_times.frame_s(key, now)

    # -- admission -------------------------------------------------------------------------------

    def submit(self, job: Job[K], now: float) -> Refused[K]:
        """Put ``job``, which came at ``now``, into the queue. Returns a list of (job, error): the
        jobs that were taken out of the queue to make room, each with the error with which the
        caller is to end the job's future.

        Raises Overloaded when the queue is full and no other job is to be refused in its place, and
        DeadlineExceeded when the deadline of ``job`` is out of reach, judged by how long frames
        took lately; ``job`` is not in the queue then.
        """
        if job.service == "live":
            self.reserve.came(job.key, now)
        self._refuse_hopeless(job, now)
        pushed_out: Refused[K] = []
        if len(self.queue) >= self.queue_size + self.workers - self.busy:
            pushed_out = self._pushed_out(job, now)
        self.counts.submitted += 1
        self.queue.push(job)
        return pushed_out

    def take_out(self, jobs: Sequence[Job[K]]) -> list[Job[K]]:
        """Take ``jobs`` out of the queue, where they are in it. Returns those of ``jobs`` whose
        attribute ``settled`` was False: nobody has ended their futures, or is about to. It is set
        to True, and the caller has to end these futures, with an error or as cancelled."""
        taken = []
        for job in jobs:
            self.queue.remove(job)
            if not job.settled:
                job.settled = True
                taken.append(job)
        return taken

    def _refuse_hopeless(self, job: Job[K], now: float) -> None:
        if job.deadline is None:
            return
        needed_s = self._expected_s(job, now)
        if now + needed_s > job.deadline or now >= job.deadline:
            self.counts.of[job.service].refused_deadline += 1
            raise refusals.out_of_reach(job, needed_s, now)

    def _expected_s(self, job: Job[K], now: float) -> float:
        """How long from now until a job pushed now is done, if turns are fair and nothing comes."""
        frame_s = self._frame_s(job, now)
        work_s = job.frames * frame_s
        work_s += sum(max(end_s - now, 0.0) for end_s in self._ends_s.values())
        for key, frames in self.queue.frames_before(job):
            work_s += frames * self._times.frame_s((key, job.form), job.form, now)
        return max(work_s / self.workers, self._rounds(job.frames) * frame_s)

    def _rounds(self, frames: int) -> int:
        """Frames that a worker runs one after the other, where all work on one request of these."""
        return math.ceil(frames / self.workers) if self._split else frames

    def _frame_s(self, job: Job[K], now: float) -> float:
        return self._times.frame_s((job.key, job.form), job.form, now)

    def _pushed_out(self, job: Job[K], now: float) -> Refused[K]:
        """Make room in a full queue; who had to go, and why. Raises Overloaded."""
        late = [other for other in self.queue if self._is_hopeless(other, now)]
        if late:
            return [(other, self._too_late(other, now)) for other in self.take_out(late)]
        before = SERVICES[: SERVICES.index(job.service) + 1]
        backlog_s = sum(
            self._frame_s(other, now) * other.left
            for other in self.queue
            if other.service in before
        )
        full = refusals.full(len(self.queue), self.queue_size, backlog_s / self.workers)
        newest = self.queue.newest_of_longest_line(job.key, job.tenant, job.service)
        if newest is None or not self.take_out([newest]):
            self.counts.of[job.service].refused_full += 1
            raise full
        self.counts.of[newest.service].refused_full += 1
        return [(newest, full)]

    def _is_hopeless(self, job: Job[K], now: float) -> bool:
        """Whether even all workers together could not keep its deadline."""
        if job.deadline is None:
            return False
        needed_s = self._rounds(job.left) * self._frame_s(job, now)
        return now >= job.deadline or now + needed_s > job.deadline

    def _too_late(self, job: Job[K], now: float) -> DeadlineExceeded:
        self.counts.of[job.service].refused_deadline += 1
        return refusals.too_late(job, now)

    # -- what is run -----------------------------------------------------------------------------

    def may_begin(self, now: float) -> bool:
        """Return whether a free worker is to take what is next in the queue at ``now``: False where
        nothing waits, and where what is next is not live and the worker is kept free for live
        requests."""
        head = self.queue.head()
        if head is None:
            return False
        if now >= self.reserve.until_s:
            return True
        others = len(self._others_run)
        return self.reserve.may_begin(head.service, others, self._latest_s(head), now)

    def late_heads(self, now: float) -> Refused[K]:
        """Take jobs out of the head of the queue as long as the next one cannot keep its deadline
        any more, even if all workers ran it at once. Returns a list of (job, error): those jobs,
        each with the DeadlineExceeded with which the caller is to end the job's future."""
        late: Refused[K] = []
        while (head := self.queue.head()) is not None and self._is_hopeless(head, now):
            late += [(job, self._too_late(job, now)) for job in self.take_out([head])]
        return late

    def take(self, number: int, now: float) -> list[Piece[K]]:
        """Return the frames that worker ``number``, which is free, is to run together from ``now``
        on; an empty list where nothing waits. Where there are any, the worker counts as busy until
        ``freed`` is called for it."""
        head = self.queue.head()
        if head is None:
            return []
        most = self._max_run_frames
        if self._split:
            free = self.workers - self.busy  # this one too
            most = min(most, max(math.ceil(self.queue.frames_of(head.service) / free), 1))
        longest_s = math.inf
        if now < self.reserve.until_s:
            longest_s = self.reserve.longest_s(head.service, len(self._others_run), now)
        if longest_s < math.inf:
            most = min(most, frames_within(longest_s, self._latest_s(head)))

        def may_join(pieces: list[Piece[K]], job: Job[K], frames: int) -> bool:
            if not self._join:
                return False
            if job.key != pieces[0].job.key and job.form != "pixels":
                return False
            needed_s = frames * self._frame_s(job, now)
            needed_s += sum(piece.frames * self._frame_s(piece.job, now) for piece in pieces)
            deadlines = [piece.job.deadline for piece in pieces] + [job.deadline]
            return fits(needed_s, longest_s) and all(
                deadline is None or now + needed_s <= deadline for deadline in deadlines
            )

        pieces = self.queue.take(most, may_join, self._group)
        for piece in pieces:
            job = piece.job
            if job.started_s is None:
                job.started_s = now
                job.worker = number
                self.counts.of[job.service].waits_s.append(now - job.submitted_s)
                self._observer.waited(job.service, now - job.submitted_s)
        if pieces:
            frames = sum(piece.frames for piece in pieces)
            self._ends_s[number] = now + frames * self._frame_s(pieces[0].job, now)
            if pieces[0].job.service != "live":
                self._others_run.add(number)
            self.counts.joined += len(pieces) if len(pieces) > 1 else 0
        return pieces

    def _latest_s(self, job: Job[K]) -> float:
        """How long a frame of it took when one was last run, 0 where none was."""
        return self._times.latest_s((job.key, job.form), job.form)

    def ran(self, pieces: Sequence[Piece[K]], seconds: float, now: float) -> None:
        """Count a run that took ``seconds`` and ended at ``now``, and learn from it how long frames
        take. ``pieces``, one or more, are what ``take`` returned for the run, without pieces of
        jobs that have ended meanwhile."""
        frames = sum(piece.frames for piece in pieces)
        frame_s, job = seconds / frames, pieces[0].job
        live = frames == 1 or job.service == "live"
        for key in dict.fromkeys(piece.job.key for piece in pieces):
            self._times.learn((key, job.form), job.form, frame_s, now)
            if live:
                self._live_times.learn(key, frame_s, now)
        self.counts.frame_times_s.append(frame_s)
        self.counts.runs += 1
        self.counts.of[job.service].frames += frames
        self._observer.ran(frames, seconds)

    def freed(self, number: int) -> None:
        """Count worker ``number`` as free from now on: what ``take`` returned for it has been run,
        or failed. Does nothing where the worker was not busy."""
        self._ends_s.pop(number, None)
        self._others_run.discard(number)


class ServiceTimes:
    """Learns from the runs of networks how many seconds a frame takes, as a running mean of each
    kind of work. Not thread-safe.

    Each kind belongs to a ``group`` of similar kinds, whose mean is used for a kind that was never
    run.
    """

    def __init__(self) -> None:
        self._means: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # (mean, when)

    def learn(self, kind: Hashable, group: Hashable, frame_s: float, now: float) -> None:
        """Record a run that took ``frame_s`` seconds a frame and ended at time ``now``, in seconds
        of any one clock.

        ``kind`` says what was run, for example (key of a network, form of its input). ``group``
        names the set of similar kinds to which ``kind`` belongs, for example the form alone.
        """
        for name in (("kind", kind), ("group", group)):
            known = self._means.get(name)
            if known is None:
                mean = frame_s
            else:
                believed = _believed(known, now)
                mean = believed + _WEIGHT * (frame_s - believed)
            self._means[name] = (mean, now)
            self._means.move_to_end(name)
        while len(self._means) > _MAX_KEYS:
            self._means.popitem(last=False)

    def frame_s(self, kind: Hashable, group: Hashable, now: float) -> float:
        """Return how many seconds a frame of ``kind`` is expected to take: the running mean of its
        runs. Where ``kind`` was never run, this is the mean of all kinds of ``group``; 0 where none
        of these was run.

        ``now`` is the present time, in seconds of the clock that ``learn`` is given. A mean whose
        last run was more than 5 s ago is reduced, by half for each further 5 s.
        """
        known = self._known(kind, group)
        return 0.0 if known is None else _believed(known, now)

    def latest_s(self, kind: Hashable, group: Hashable) -> float:
        """Return the running mean of the seconds that a frame of ``kind`` took, as it was at its
        last run, however long ago that was. Where ``kind`` was never run, this is the mean of all
        kinds of ``group``; 0 where none of these was run."""
        known = self._known(kind, group)
        return 0.0 if known is None else known[0]

    def _known(self, kind: Hashable, group: Hashable) -> tuple[float, float] | None:
        return self._means.get(("kind", kind)) or self._means.get(("group", group))


class RecentTimes:
    """Learns from the latest runs how many seconds a frame takes, as a median for each key (a key
    names a network). Not thread-safe.

    A run that took long by chance hardly moves a median, and no run counts for more than a minute.
    """

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, deque[tuple[float, float]]] = OrderedDict()

    def learn(self, key: Hashable, frame_s: float, now: float) -> None:
        """Record a run of ``key`` that took ``frame_s`` seconds a frame and ended at time ``now``,
        in seconds of any one clock."""
        runs = self._runs.setdefault(key, deque(maxlen=_RECENT))
        runs.append((now, frame_s))
        self._runs.move_to_end(key)
        while len(self._runs) > _MAX_KEYS:
            self._runs.popitem(last=False)

    def frame_s(self, key: Hashable, now: float) -> float | None:
        """Return the median of the seconds that a frame of ``key`` took in its latest runs, 64 at
        most, that ended within 60 s (RECENT_S) before ``now``, a time in seconds of the clock that
        ``learn`` is given; None where there is no such run."""
        times = [frame_s for when, frame_s in self._runs.get(key, ()) if now - when <= RECENT_S]
        return median(times) if times else None


def _believed(known: tuple[float, float], now: float) -> float:
    mean, when = known
    unconfirmed_s = now - when - _BELIEVED_S
    if unconfirmed_s <= 0:
        return mean
    return mean * float(0.5 ** min(unconfirmed_s / _BELIEVED_S, 60.0))
