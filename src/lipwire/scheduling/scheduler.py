"""Requests for mouths, put in order and run by a few workers.

    submit ──▶ refused: queue full, deadline out of reach, draining
       └─────▶ the queue ──(whose turn it is)──▶ a run of a few frames ──▶ run() ──▶ the future
                                                  of one request, or of several

Workers take live requests first, the one with the earliest deadline before the others, then batch,
then render, and in these two tenants and their keys have turns (``FairQueue``). A run is never
interrupted, so while there are live requests a run of the other classes is a short one, and one
worker takes none.

A large request is run in pieces, by several workers where they are free, so that it neither keeps
the others waiting nor leaves a worker idle. Small requests of one key, or of several that can be
run together, may be joined where that costs none of them its deadline.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic

import numpy as np

from lipwire.domain import (
    FPS,
    SERVICES,
    AudioWindows,
    DeadlineExceeded,
    Float32Array,
    Form,
    InvalidInput,
    Overloaded,
    Service,
    Unavailable,
)
from lipwire.domain.closing import Closing
from lipwire.scheduling.estimates import RecentTimes, ServiceTimes
from lipwire.scheduling.fairness import FairQueue
from lipwire.scheduling.jobs import Across, Array, Job, K, Piece, together
from lipwire.scheduling.schedulerstats import ClassCounts, Counts, SchedulerStats, stats_of

_LOG: Final = logging.getLogger(__name__)
_RETRY_S: Final = (0.01, 10.0)
"""Bounds of ``retry_after_s``."""
_ROUNDING: Final = 1e-9
"""So that 40 ms hold two frames of 20."""

MAX_RUN_FRAMES: Final = 8
"""Frames in one run unless the owner says otherwise: a third of a second of speech, and on one
core some 0.4 s of work at the mobile widths, which is how long another key may have to wait."""

LIVE_FOR_S: Final = 2.0
"""So long after a live request was submitted another one may come at any moment."""
LIVE_RUN_S: Final = 1 / FPS
"""The longest that a run of another class is expected to take meanwhile: the time of one frame."""


class Scheduler(Closing, Generic[K]):
    """Runs requests on ``workers`` threads. Thread-safe; a context manager.

        with Scheduler(run, workers=2, queue_size=100) as scheduler:
            job = scheduler.submit(model, crops, windows, deadline=clock() + 2.0)
            mouths = job.result(timeout=2.0)

    ``run(key, faces, windows)`` takes N frames of one key and one form and returns N mouths. It is
    called by several workers at once, may raise, and must not change what it is given.
    """

    def __init__(
        self,
        run: Callable[[K, Array, Float32Array], Array],
        *,
        workers: int,
        queue_size: int,
        clock: Callable[[], float] = time.monotonic,
        max_run_frames: int = MAX_RUN_FRAMES,
        join: bool = False,
        across: Across[K] | None = None,
        split: bool = True,
        name: str = "lipwire-run",
    ) -> None:
        """``queue_size`` requests may wait. A run holds at most ``max_run_frames``. ``clock`` gives
        seconds; the threads are called ``name`` and a number.

        ``join`` lets a run hold frames of several requests of one key. That is for devices on which
        a run of many frames is cheaper than as many runs; a processor works frame by frame, and a
        request that is joined there only waits for the others. ``across`` joins those of several
        keys, too. ``split`` lets free workers share the frames of a request, which is for devices
        whose workers compute side by side: on a GPU the pieces would take turns, and each nearly as
        long as the whole. Raises InvalidInput.
        """
        for label, number in (
            ("workers", workers),
            ("queue_size", queue_size),
            ("max_run_frames", max_run_frames),
        ):
            if number < 1:
                raise InvalidInput(f"{label} is {number}; allowed are 1 and above")
        self._run = run
        self._clock = clock
        self._queue_size = queue_size
        self._max_run_frames = max_run_frames
        self._join = join
        self._across = across
        self._split = split

        self._lock = threading.Lock()
        self._work_there = threading.Condition(self._lock)
        self._all_done = threading.Condition(self._lock)
        self._queue: FairQueue[K] = FairQueue(max_run_frames)
        self._times = ServiceTimes()
        self._live_times = RecentTimes()
        self._ends_s: dict[int, float] = {}
        """When each busy worker is expected to be free."""
        self._others_run: set[int] = set()
        """Workers that are busy with requests that are not live."""
        self._live_until_s = self._expected_until_s = -math.inf
        """Until the later of them runs of other classes are short; until the first, one worker
        takes none."""
        self._draining = self._stopping = False
        self._counts = Counts()
        self._counts_of = {service: ClassCounts() for service in SERVICES}
        self._workers = [
            threading.Thread(
                target=self._work, args=(number,), name=f"{name}-{number}", daemon=True
            )
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def submit(
        self,
        key: K,
        faces: Array,
        windows: AudioWindows,
        *,
        deadline: float | None = None,
        form: Form = "pixels",
        service: Service = "batch",
        tenant: str = "",
    ) -> Job[K]:
        """Queue a request for mouths of N frames, and return a job, which is the future of the
        mouths.

        ``key`` says which network is to be run, and is handed to ``run``. ``form`` says what
        ``faces`` are: "pixels" crops, (N, 320, 320, 3) uint8, or their numbers on the device, (N,)
        int64; "floats" the network's own input, (N, 6, 320, 320) float32. ``windows`` are the audio
        windows, (N, 32, 16, 16) float32. Neither may change until the job is done. ``deadline`` is
        the time of the scheduler's clock, in seconds, by which the mouths have to be there; None is
        none. ``service`` is the request's class, ``tenant`` the name of who asks.

        Raises InvalidInput where N is 0 or differs, Overloaded when the queue is full,
        DeadlineExceeded when the deadline is out of reach as far as can be told, Unavailable while
        draining. The job may end with these too: Overloaded when it had to make room for an
        earlier class, or for a tenant or a key that had less in the queue; and with whatever
        ``run`` raised.
        """
        if len(faces) < 1 or len(faces) != len(windows):
            raise InvalidInput(
                f"there are {len(faces)} faces and {len(windows)} windows; wanted is one window for"
                " each face, and at least one"
            )
        now = self._clock()
        job = Job(
            key,
            form,
            faces,
            windows,
            deadline=deadline,
            submitted_s=now,
            withdraw=self._withdraw,
            service=service,
            tenant=tenant,
        )
        pushed_out: list[tuple[Job[K], Exception]] = []
        try:
            with self._lock:
                if self._draining:
                    raise Unavailable("the server is stopping; ask another one")
                if service == "live":
                    self._live_until_s = now + LIVE_FOR_S
                self._refuse_hopeless(job, now)
                if len(self._queue) >= self._queue_size + len(self._workers) - len(self._ends_s):
                    pushed_out = self._pushed_out(job, now)
                self._counts.submitted += 1
                self._queue.push(job)
                self._work_there.notify(job.frames)
        finally:
            for other, error in pushed_out:
                other.set_exception(error)
        return job

    def drain(self, timeout_s: float | None = None) -> bool:
        """Accept no more requests, finish those that were accepted, and stop the workers.

        Returns whether all were finished. After ``timeout_s`` seconds (None: no limit) those that
        still wait end with Unavailable, and runs under way finish by themselves. May be called
        again.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            self._draining = True
            while len(self._queue) or self._ends_s:
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._all_done.wait(left_s)
            self._stopping = True
            unfinished = self._take_out(list(self._queue))
            busy = bool(self._ends_s)
            self._work_there.notify_all()
        for job in unfinished:
            job.set_exception(Unavailable("the server stopped before it came to this request"))
        if busy:
            return False
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()
        return not unfinished

    def close(self) -> None:
        """End waiting requests with Unavailable, wait for runs under way, and stop the workers."""
        self.drain(0.0)
        for worker in self._workers:
            worker.join()

    def stats(self) -> SchedulerStats:
        """Return the scheduler's numbers at this moment, and its counts since it was made."""
        with self._lock:
            return stats_of(
                self._queue,
                self._queue_size,
                len(self._ends_s),
                len(self._workers),
                self._counts,
                self._counts_of,
            )

    @property
    def side_by_side(self) -> int:
        """How many frames are computed side by side: as many as there are workers, or 1 where
        ``split`` is False, as the workers then share a device that computes one run after the
        other."""
        return len(self._workers) if self._split else 1

    def expect_live(self, for_s: float) -> None:
        """Have runs of other classes be short for ``for_s`` seconds from now: a live request may
        come at any moment."""
        with self._lock:
            self._expected_until_s = max(self._expected_until_s, self._clock() + for_s)

    def live_frame_s(self, key: K) -> float | None:
        """Return the median seconds that a frame of ``key`` took in the latest runs of live
        requests and of single frames; None where there was none within a minute."""
        with self._lock:
            return self._live_times.frame_s(key, self._clock())

    # -- admission (all under the lock) ------------------------------------------------------------

    def _refuse_hopeless(self, job: Job[K], now: float) -> None:
        if job.deadline is None:
            return
        needed_s = self._expected_s(job, now)
        if now + needed_s > job.deadline or now >= job.deadline:
            self._counts_of[job.service].refused_deadline += 1
            raise DeadlineExceeded(
                f"{job.frames} frames would take about {needed_s * 1000:.0f} ms with those that"
                f" wait; the deadline is in {(job.deadline - now) * 1000:.0f} ms"
            )

    def _expected_s(self, job: Job[K], now: float) -> float:
        """How long from now until a job pushed now is done, if turns are fair and nothing comes."""
        frame_s = self._frame_s(job, now)
        work_s = job.frames * frame_s
        work_s += sum(max(end_s - now, 0.0) for end_s in self._ends_s.values())
        for key, frames in self._queue.frames_before(job):
            work_s += frames * self._times.frame_s((key, job.form), job.form, now)
        workers = len(self._workers)
        return max(work_s / workers, self._rounds(job.frames) * frame_s)

    def _rounds(self, frames: int) -> int:
        """Frames that a worker runs one after the other, where all work on one request of these."""
        return math.ceil(frames / len(self._workers)) if self._split else frames

    def _frame_s(self, job: Job[K], now: float) -> float:
        return self._times.frame_s((job.key, job.form), job.form, now)

    def _pushed_out(self, job: Job[K], now: float) -> list[tuple[Job[K], Exception]]:
        """Make room in a full queue; who had to go, and why. Raises Overloaded."""
        late = [other for other in self._queue if self._is_hopeless(other, now)]
        if late:
            return [(other, self._too_late(other, now)) for other in self._take_out(late)]
        before = SERVICES[: SERVICES.index(job.service) + 1]
        backlog_s = sum(
            self._frame_s(other, now) * other.left
            for other in self._queue
            if other.service in before
        )
        low_s, high_s = _RETRY_S
        full = Overloaded(
            f"{len(self._queue)} requests wait for a worker; allowed are {self._queue_size}",
            retry_after_s=min(max(backlog_s / len(self._workers) / 2, low_s), high_s),
        )
        newest = self._queue.newest_of_longest_line(job.key, job.tenant, job.service)
        if newest is None or not self._take_out([newest]):
            self._counts_of[job.service].refused_full += 1
            raise full
        self._counts_of[newest.service].refused_full += 1
        return [(newest, full)]

    def _is_hopeless(self, job: Job[K], now: float) -> bool:
        """Whether even all workers together could not keep its deadline."""
        if job.deadline is None:
            return False
        needed_s = self._rounds(job.left) * self._frame_s(job, now)
        return now >= job.deadline or now + needed_s > job.deadline

    def _too_late(self, job: Job[K], now: float) -> DeadlineExceeded:
        self._counts_of[job.service].refused_deadline += 1
        return DeadlineExceeded(
            f"after {(now - job.submitted_s) * 1000:.0f} ms of waiting, {job.left} of"
            f" {job.frames} frames cannot be made by the deadline any more"
        )

    def _take_out(self, jobs: list[Job[K]]) -> list[Job[K]]:
        """Take jobs out of the queue that nobody has ended yet; those that the caller is to end."""
        taken = []
        for job in jobs:
            self._queue.remove(job)
            if not job.settled:
                job.settled = True
                taken.append(job)
        self._tell_if_done()
        return taken

    def _tell_if_done(self) -> None:
        if not len(self._queue) and not self._ends_s:
            self._all_done.notify_all()

    def _withdraw(self, job: Job[K]) -> bool:
        """Cancel ``job`` unless it ends otherwise; whether it is cancelled."""
        with self._lock:
            if not self._take_out([job]):
                return job.withdrawn
            job.withdrawn = True
            self._counts.cancelled += 1
        job.end_cancelled()
        return True

    # -- workers -----------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        while True:
            with self._lock:
                while not self._may_begin(now := self._clock()):
                    if self._stopping and not len(self._queue):
                        return
                    self._work_there.wait(LIVE_FOR_S if len(self._queue) else None)
                late = self._late_heads(now)
                pieces = self._take(number, now)
            for job, error in late:
                job.set_exception(error)
            if not pieces:
                continue
            try:
                self._run_pieces(number, pieces)
            finally:
                with self._lock:
                    self._ends_s.pop(number, None)
                    self._others_run.discard(number)
                    if len(self._queue):
                        self._work_there.notify()
                    self._tell_if_done()

    def _may_begin(self, now: float) -> bool:
        """Whether a free worker is to take what is next in the queue."""
        head = self._queue.head()
        if head is None:
            return False
        if head.service == "live" or now >= self._live_until_s or not self._split:
            return True
        return len(self._others_run) < max(1, len(self._workers) - 1)

    def _late_heads(self, now: float) -> list[tuple[Job[K], Exception]]:
        """Those next in turn that are not worth beginning any more."""
        late: list[tuple[Job[K], Exception]] = []
        while (head := self._queue.head()) is not None and self._is_hopeless(head, now):
            late += [(job, self._too_late(job, now)) for job in self._take_out([head])]
        return late

    def _take(self, number: int, now: float) -> list[Piece[K]]:
        head = self._queue.head()
        if head is None:
            return []
        most = self._max_run_frames
        if self._split:
            free = len(self._workers) - len(self._ends_s)  # this one too
            most = min(most, max(math.ceil(self._queue.frames_of(head.service) / free), 1))
        live_until_s = max(self._live_until_s, self._expected_until_s)
        hurried = head.service != "live" and now < live_until_s
        longest_s = LIVE_RUN_S if hurried else math.inf
        if hurried:
            most = min(most, self._frames_within(longest_s, head))

        def may_join(pieces: list[Piece[K]], job: Job[K], frames: int) -> bool:
            if not self._join:
                return False
            if job.key != pieces[0].job.key and job.form != "pixels":
                return False
            needed_s = frames * self._frame_s(job, now)
            needed_s += sum(piece.frames * self._frame_s(piece.job, now) for piece in pieces)
            deadlines = [piece.job.deadline for piece in pieces] + [job.deadline]
            return needed_s <= longest_s + _ROUNDING and all(
                deadline is None or now + needed_s <= deadline for deadline in deadlines
            )

        if self._across is None or not self._join:
            pieces = self._queue.take(most, may_join)
        else:
            pieces = self._queue.take(most, may_join, self._across.group)
        for piece in pieces:
            job = piece.job
            if job.started_s is None:
                job.started_s = now
                job.worker = number
                self._counts_of[job.service].waits_s.append(now - job.submitted_s)
        if pieces:
            frames = sum(piece.frames for piece in pieces)
            self._ends_s[number] = now + frames * self._frame_s(pieces[0].job, now)
            if pieces[0].job.service != "live":
                self._others_run.add(number)
            self._counts.joined += len(pieces) if len(pieces) > 1 else 0
        return pieces

    def _frames_within(self, longest_s: float, job: Job[K]) -> int:
        """How many frames of ``job`` a run may have that is expected to take ``longest_s``; one at
        least, and one where nothing is known of such frames."""
        frame_s = self._times.latest_s((job.key, job.form), job.form)
        return max(int((longest_s + _ROUNDING) / frame_s), 1) if frame_s > 0 else 1

    def _run_pieces(self, number: int, pieces: list[Piece[K]]) -> None:
        pieces = [piece for piece in pieces if not piece.job.settled]
        if not pieces:
            return
        try:
            self._run_together(pieces)
        except BaseException as error:
            if len(pieces) > 1:
                # One bad request must not fail those it was joined with.
                for piece in pieces:
                    self._run_pieces(number, [piece])
                return
            self._fail(pieces[0].job, error)

    def _run_together(self, pieces: list[Piece[K]]) -> None:
        by_key: dict[K, list[Piece[K]]] = {}
        for piece in pieces:
            by_key.setdefault(piece.job.key, []).append(piece)
        of_key = list(by_key.values())
        parts = [(key, *together(group)) for key, group in by_key.items()]
        frames = sum(len(faces) for _, faces, _ in parts)
        start_s = self._clock()
        if len(parts) == 1:
            made: Sequence[Array] = [self._run(*parts[0])]
        else:
            assert self._across is not None  # nothing else takes several keys
            made = self._across.run(parts)
        now = self._clock()
        for (_, faces, _), mouths in zip(parts, made, strict=True):
            if len(mouths) != len(faces):
                raise RuntimeError(f"a run of {len(faces)} frames gave {len(mouths)} mouths")
        frame_s = (now - start_s) / frames
        form = pieces[0].job.form
        live = frames == 1 or pieces[0].job.service == "live"
        with self._lock:
            for key, _, _ in parts:
                self._times.learn((key, form), form, frame_s, now)
                if live:
                    self._live_times.learn(key, frame_s, now)
            self._counts.frame_times_s.append(frame_s)
            self._counts.runs += 1
            self._counts_of[pieces[0].job.service].frames += frames
        for group, mouths in zip(of_key, made, strict=True):
            at = 0
            for piece in group:
                self._deliver(piece, mouths[at : at + piece.frames], frame_s * piece.frames, now)
                at += piece.frames

    def _deliver(self, piece: Piece[K], mouths: Array, service_s: float, now: float) -> None:
        job = piece.job
        with self._lock:
            if job.settled:
                return
            place = job.place(piece, mouths)
        if place is not mouths:
            try:
                np.copyto(place, mouths, casting="no")
            except (TypeError, ValueError) as error:  # other shapes than this job's last piece had
                self._fail(job, error)
                return
        with self._lock:
            job.service_s += service_s
            job.done_frames += piece.frames
            if job.done_frames < job.frames or job.settled or job.mouths is None:
                return
            job.settled = True
            job.finished_s = now
            self._counts.finished += 1
        job.set_result(job.mouths)

    def _fail(self, job: Job[K], error: BaseException) -> None:
        if not isinstance(error, Exception):
            # SystemExit and the like are for whoever runs a thread, not for who asked for mouths.
            _LOG.error("a run ended with %r", error)
            wrapped = RuntimeError(f"a run ended with {type(error).__name__}")
            wrapped.__cause__ = error
            error = wrapped
        with self._lock:
            if not self._take_out([job]):
                return
            job.finished_s = self._clock()
            self._counts.failed += 1
        job.set_exception(error)
