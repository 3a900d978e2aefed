"""Requests for mouths, put in order and run by a few workers.

    submit ──▶ refused: queue full, deadline out of reach, draining
       └─────▶ the line of its key ──(fair turns)──▶ a run of a few frames ──▶ run() ──▶ the future
                                                      of one request, or of several

A large request is run in pieces, by several workers where they are free, so that it neither keeps
the others waiting nor leaves a worker idle. Small requests of one key, or of several that can be
run together, may be joined where that costs none of them its deadline.
"""

import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Generic, Self

import numpy as np

from lipwire.domain import (
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from lipwire.engine.estimates import ServiceTimes
from lipwire.engine.fairness import FairQueue
from lipwire.engine.jobs import Array, Job, K, Piece
from lipwire.engine.schedulerstats import SchedulerStats, quantiles
from lipwire.engine.wrapping import Form

_LOG: Final = logging.getLogger(__name__)
_REMEMBERED: Final = 512
"""Finished requests and runs that the quantiles are taken from."""
_RETRY_S: Final = (0.01, 10.0)
"""Bounds of ``retry_after_s``."""

MAX_RUN_FRAMES: Final = 8
"""Frames in one run unless the owner says otherwise: a third of a second of speech, and on one
core some 0.4 s of work at the mobile widths, which is how long another key may have to wait."""


@dataclass(frozen=True, slots=True)
class Across(Generic[K]):
    """How frames of several keys are run together."""

    group: Callable[[K], Hashable | None]
    """Keys of equal groups may be; None for one that may not. Called under a lock."""
    run: Callable[[list[tuple[K, Array, Float32Array]]], Sequence[Array]]
    """As the scheduler's own, for keys of one group, each once."""


class Scheduler(Generic[K]):
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
        """``queue_size`` requests may wait. A run holds at most ``max_run_frames``.

        ``join`` lets a run hold frames of several requests of one key. That is for devices on which
        a run of many frames is cheaper than as many runs; a processor works frame by frame, and
        whoever is joined there only waits for the others. ``across`` joins those of several keys,
        too. ``split`` lets free workers share the
        frames of a request, which is for devices whose workers compute side by side: on a GPU the
        pieces would take turns, and each nearly as long as the whole. Raises InvalidInput.
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
        self._ends_s: dict[int, float] = {}
        """When each busy worker is expected to be free."""
        self._draining = self._stopping = False
        self._submitted = self._finished = self._failed = self._cancelled = 0
        self._refused_full = self._refused_deadline = 0
        self._runs = self._frames = self._joined = 0
        self._waits_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._frame_times_s: deque[float] = deque(maxlen=_REMEMBERED)
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
        windows: Float32Array,
        *,
        deadline: float | None = None,
        form: Form = "pixels",
    ) -> Job[K]:
        """Have mouths made for N frames; the job is their future.

        ``faces`` and ``windows`` are as ``Engine`` takes them for ``form``, and stay unchanged
        until the job is done. ``deadline`` is a time of the clock by which they are to be there.

        Raises InvalidInput where N is 0 or differs, Overloaded when the queue is full,
        DeadlineExceeded when the deadline is out of reach as far as can be told, Unavailable while
        draining. The job may end with these too: Overloaded when it had to make room for a key
        that had less in the queue; and with whatever ``run`` raised.
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
        )
        pushed_out: list[tuple[Job[K], Exception]] = []
        try:
            with self._lock:
                if self._draining:
                    raise Unavailable("the server is stopping; ask another one")
                self._refuse_hopeless(job, now)
                if len(self._queue) >= self._queue_size + len(self._workers) - len(self._ends_s):
                    pushed_out = self._pushed_out(job, now)
                self._submitted += 1
                self._queue.push(job)
                self._work_there.notify(job.frames)
        finally:
            for other, error in pushed_out:
                _end_with(other, error)
        return job

    def drain(self, timeout_s: float | None = None) -> bool:
        """Take no more requests, finish those in hand, stop the workers; whether all was finished.

        After ``timeout_s`` those that still wait end with Unavailable, and what is running is left
        to finish by itself. May be called again.
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
            _end_with(job, Unavailable("the server stopped before it came to this request"))
        if busy:
            return False
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()
        return not unfinished

    def close(self) -> None:
        """End what waits with Unavailable, wait for what is running, stop the workers."""
        self.drain(0.0)
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stats(self) -> SchedulerStats:
        with self._lock:
            waits_s, frame_times_s = list(self._waits_s), list(self._frame_times_s)
            queued, queued_frames, busy = len(self._queue), self._queue.frames, len(self._ends_s)
            numbers = (
                self._submitted,
                self._finished,
                self._failed,
                self._cancelled,
                self._refused_full,
                self._refused_deadline,
                self._runs,
                self._frames,
                self._joined,
            )
        return SchedulerStats(
            queued,
            queued_frames,
            self._queue_size,
            busy,
            len(self._workers),
            *numbers,
            wait=quantiles(waits_s),
            service=quantiles(frame_times_s),
        )

    # -- admission (all under the lock) ------------------------------------------------------------

    def _refuse_hopeless(self, job: Job[K], now: float) -> None:
        if job.deadline is None:
            return
        needed_s = self._expected_s(job, now)
        if now + needed_s > job.deadline or now >= job.deadline:
            self._refused_deadline += 1
            raise DeadlineExceeded(
                f"{job.frames} frames would take about {needed_s * 1000:.0f} ms with those that"
                f" wait; the deadline is in {(job.deadline - now) * 1000:.0f} ms"
            )

    def _expected_s(self, job: Job[K], now: float) -> float:
        """How long from now until a job pushed now is done, if turns are fair and nothing comes."""
        waiting = self._queue.frames_by_key()
        own = waiting.pop(job.key, 0) + job.frames
        frame_s = self._frame_s(job, now)
        work_s = own * frame_s + sum(max(end_s - now, 0.0) for end_s in self._ends_s.values())
        for key, frames in waiting.items():
            work_s += min(frames, own) * self._times.frame_s((key, job.form), job.form, now)
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
        self._refused_full += 1
        backlog_s = sum(self._frame_s(other, now) * other.left for other in self._queue)
        low_s, high_s = _RETRY_S
        full = Overloaded(
            f"{len(self._queue)} requests wait for a worker; allowed are {self._queue_size}",
            retry_after_s=min(max(backlog_s / len(self._workers) / 2, low_s), high_s),
        )
        newest = self._queue.newest_of_longest_line(job.key)
        if newest is None or not self._take_out([newest]):
            raise full
        return [(newest, full)]

    def _is_hopeless(self, job: Job[K], now: float) -> bool:
        """Whether even all workers together could not keep its deadline."""
        if job.deadline is None:
            return False
        needed_s = self._rounds(job.left) * self._frame_s(job, now)
        return now >= job.deadline or now + needed_s > job.deadline

    def _too_late(self, job: Job[K], now: float) -> DeadlineExceeded:
        self._refused_deadline += 1
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

    def _withdraw(self, job: Job[K]) -> None:
        """A job's ``cancel`` has succeeded."""
        with self._lock:
            if job.settled:
                return
            self._take_out([job])
            self._cancelled += 1
        job.set_running_or_notify_cancel()

    # -- workers -----------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        while True:
            with self._lock:
                while not len(self._queue) and not self._stopping:
                    self._work_there.wait()
                if not len(self._queue):
                    return
                now = self._clock()
                late = self._late_heads(now)
                pieces = self._take(number, now)
            for job, error in late:
                _end_with(job, error)
            if not pieces:
                continue
            try:
                self._run_pieces(number, pieces)
            finally:
                with self._lock:
                    self._ends_s.pop(number, None)
                    self._tell_if_done()

    def _late_heads(self, now: float) -> list[tuple[Job[K], Exception]]:
        """Those next in turn that are not worth beginning any more."""
        late: list[tuple[Job[K], Exception]] = []
        while (head := self._queue.head()) is not None and self._is_hopeless(head, now):
            late += [(job, self._too_late(job, now)) for job in self._take_out([head])]
        return late

    def _take(self, number: int, now: float) -> list[Piece[K]]:
        most = self._max_run_frames
        if self._split:
            free = len(self._workers) - len(self._ends_s)  # this one too
            most = min(most, max(math.ceil(self._queue.frames / free), 1))

        def may_join(pieces: list[Piece[K]], job: Job[K], frames: int) -> bool:
            if not self._join:
                return False
            if job.key != pieces[0].job.key and job.form != "pixels":
                return False
            end_s = now + (sum(p.frames for p in pieces) + frames) * self._frame_s(job, now)
            deadlines = [p.job.deadline for p in pieces] + [job.deadline]
            return all(deadline is None or end_s <= deadline for deadline in deadlines)

        if self._across is None or not self._join:
            pieces = self._queue.take(most, may_join)
        else:
            pieces = self._queue.take(most, may_join, self._across.group)
        for piece in pieces:
            job = piece.job
            if job.started_s is None:
                job.started_s = now
                job.worker = number
                self._waits_s.append(now - job.submitted_s)
        if pieces:
            frames = sum(piece.frames for piece in pieces)
            self._ends_s[number] = now + frames * self._frame_s(pieces[0].job, now)
            self._joined += len(pieces) if len(pieces) > 1 else 0
        return pieces

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
        of_key = [list(group) for _, group in itertools.groupby(pieces, lambda p: p.job.key)]
        parts = [(group[0].job.key, *_together(group)) for group in of_key]
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
        with self._lock:
            for key, _, _ in parts:
                self._times.learn((key, form), form, frame_s, now)
            self._frame_times_s.append(frame_s)
            self._runs += 1
            self._frames += frames
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
            self._finished += 1
        if job.set_running_or_notify_cancel():
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
            self._failed += 1
        _end_with(job, error)


def _together(pieces: list[Piece[K]]) -> tuple[Array, Float32Array]:
    """Faces and windows of all."""
    if len(pieces) == 1:
        return pieces[0].faces, pieces[0].windows
    faces = np.concatenate([piece.faces for piece in pieces])
    return faces, np.concatenate([piece.windows for piece in pieces])


def _end_with(job: Job[K], error: Exception) -> None:
    """End a job that the caller has settled."""
    if job.set_running_or_notify_cancel():
        job.set_exception(error)
