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
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic

import numpy as np

from lipwire.domain import (
    AudioWindows,
    Float32Array,
    Form,
    InvalidInput,
    Service,
    Unavailable,
)
from lipwire.domain.closing import Closing
from lipwire.scheduling.dispatcher import Dispatcher
from lipwire.scheduling.jobs import Across, Array, Job, K, Piece, together
from lipwire.scheduling.livereserve import LIVE_FOR_S
from lipwire.scheduling.schedulerstats import NO_OBSERVER, Observer, SchedulerStats

_LOG: Final = logging.getLogger(__name__)

MAX_RUN_FRAMES: Final = 8
"""Frames in one run unless the owner says otherwise: a third of a second of speech, and on one
core some 0.4 s of work at the mobile widths, which is how long another key may have to wait."""


class Scheduler(Closing, Generic[K]):
    """Runs requests for mouths on ``workers`` threads. Thread-safe; a context manager, which calls
    ``close`` at the end.

        with Scheduler(run, workers=2, queue_size=100) as scheduler:
            job = scheduler.submit(model, crops, windows, deadline=clock() + 2.0)
            mouths = job.result(timeout=2.0)

    ``run(key, faces, windows)`` runs the network of ``key`` for N frames, and returns N mouths;
    ``key``, ``faces`` and ``windows`` are those that ``submit`` was given, or a part of them. It is
    called by several workers at once, may raise, which ends the job with that error, and must not
    change its arguments.
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
        observer: Observer = NO_OBSERVER,
        name: str = "lipwire-run",
    ) -> None:
        """``queue_size`` requests may wait. A run holds ``max_run_frames`` frames at most.
        ``clock`` gives seconds; threads are called ``name`` and a number; the methods of
        ``observer`` are called when requests are begun and after runs.

        ``join`` lets a run hold frames of several requests of one key. That is for devices on which
        a run of many frames is cheaper than as many runs; a processor works frame by frame, and a
        request that is joined there only waits for the others. With ``join``, ``across`` lets a run
        hold requests of several keys, too: it says which keys may be in one run, and makes such a
        run in place of ``run``. ``split`` lets free workers share the frames of a request, which is
        for devices whose workers compute side by side: on a GPU the pieces would take turns, and
        each would last nearly as long as the whole. Raises InvalidInput where ``workers``,
        ``queue_size`` or ``max_run_frames`` is less than 1.
        """
        sizes = {"workers": workers, "queue_size": queue_size, "max_run_frames": max_run_frames}
        for label, number in sizes.items():
            if number < 1:
                raise InvalidInput(f"{label} is {number}; allowed are 1 and above")
        self._run = run
        self._clock = clock
        self._across = across if join else None
        self._split = split

        self._lock = threading.Lock()
        self._work_there = threading.Condition(self._lock)
        self._all_done = threading.Condition(self._lock)
        self._dispatcher: Dispatcher[K] = Dispatcher(
            **sizes,
            join=join,
            group=None if across is None else across.group,
            split=split,
            observer=observer,
        )
        self._draining = self._stopping = False
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
        ``faces`` are: "pixels" crops, (N, 320, 320, 3) uint8, or, where the device holds these, the
        numbers of their frames, (N,) int64; "floats" the network's own input, (N, 6, 320, 320)
        float32. ``windows`` are the audio windows, (N, 32, 16, 16) float32. Neither may change
        until the job is done. ``deadline`` is the time of the scheduler's clock, in seconds, by
        which the mouths have to be there; with None there is no deadline. ``service`` is the
        request's class, "live", "batch" or "render", which are run in this order; ``tenant`` is the
        name of who asks.

        Raises InvalidInput where N is 0 or is not the same for ``faces`` and ``windows``,
        Overloaded when the queue is full, DeadlineExceeded when the deadline is out of reach,
        judged by how long frames took lately, and Unavailable once ``drain`` or ``close`` was
        called. The job ends with Overloaded when it had to make room for an earlier class, or for a
        tenant or a key that had less in the queue; with DeadlineExceeded when it has waited for so
        long that its deadline is out of reach; with Unavailable when the scheduler stopped before;
        and with the error of ``run`` where that raised one.
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
                pushed_out = self._dispatcher.submit(job, now)
                self._work_there.notify(job.frames)
        finally:
            for other, error in pushed_out:
                other.set_exception(error)
        return job

    def drain(self, timeout_s: float | None = None) -> bool:
        """Accept no more requests (``submit`` raises Unavailable), wait until those that were
        accepted are finished, and stop the workers.

        Returns whether all were finished. After ``timeout_s`` seconds (None: no limit) the requests
        that still wait end with Unavailable, False is returned at once, and runs under way finish
        by themselves. May be called again.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            self._draining = True
            while len(self._dispatcher.queue) or self._dispatcher.busy:
                left_s = None if until is None else until - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._all_done.wait(left_s)
            self._stopping = True
            unfinished = self._take_out(list(self._dispatcher.queue))
            busy = bool(self._dispatcher.busy)
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
        """End the requests that wait with Unavailable, wait without limit for the runs under way,
        and stop the workers. May be called again."""
        self.drain(0.0)
        for worker in self._workers:
            worker.join()

    def stats(self) -> SchedulerStats:
        """Return the scheduler's numbers at this moment, and its counts since it was made."""
        with self._lock:
            return self._dispatcher.stats()

    @property
    def alive(self) -> bool:
        """Whether all worker threads run, as they should from the beginning until ``drain`` or
        ``close`` stops them; True once they are being stopped."""
        return self._stopping or all(worker.is_alive() for worker in self._workers)

    @property
    def side_by_side(self) -> int:
        """How many frames the device computes at the same time: the number of workers, or 1 where
        ``split`` is False, as the workers then share a device that computes one run after the
        other."""
        return len(self._workers) if self._split else 1

    def expect_live(self, for_s: float) -> None:
        """Have runs of the other classes be short (about 40 ms) for ``for_s`` seconds from now,
        because a live request may come at any moment. A shorter time than is left from an earlier
        call changes nothing."""
        with self._lock:
            self._dispatcher.reserve.expect(self._clock() + for_s)

    def live_frame_s(self, key: K) -> float | None:
        """Return how many seconds a frame of the network ``key`` takes: the median of its latest
        runs, 64 at most, that were for live requests or of a single frame, and ended within the
        last 60 s. None where there was none."""
        with self._lock:
            return self._dispatcher.live_frame_s(key, self._clock())

    def _take_out(self, jobs: list[Job[K]]) -> list[Job[K]]:
        """Take jobs out of the queue that nobody has ended yet; those that the caller is to end.
        Under the lock."""
        taken = self._dispatcher.take_out(jobs)
        self._tell_if_done()
        return taken

    def _tell_if_done(self) -> None:
        if not len(self._dispatcher.queue) and not self._dispatcher.busy:
            self._all_done.notify_all()

    def _withdraw(self, job: Job[K]) -> bool:
        """Cancel ``job`` unless it ends otherwise; whether it is cancelled."""
        with self._lock:
            if not self._take_out([job]):
                return job.withdrawn
            job.withdrawn = True
            self._dispatcher.counts.cancelled += 1
        job.end_cancelled()
        return True

    # -- workers -----------------------------------------------------------------------------------

    def _work(self, number: int) -> None:
        dispatcher = self._dispatcher
        while True:
            with self._lock:
                while not dispatcher.may_begin(now := self._clock()):
                    waiting = len(dispatcher.queue)
                    if self._stopping and not waiting:
                        return
                    self._work_there.wait(LIVE_FOR_S if waiting else None)
                late = dispatcher.late_heads(now)
                pieces = dispatcher.take(number, now)
                self._tell_if_done()
            for job, error in late:
                job.set_exception(error)
            if not pieces:
                continue
            try:
                self._run_pieces(number, pieces)
            finally:
                with self._lock:
                    dispatcher.freed(number)
                    if len(dispatcher.queue):
                        self._work_there.notify()
                    self._tell_if_done()

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
        with self._lock:
            self._dispatcher.ran(pieces, now - start_s, now)
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
            self._dispatcher.counts.finished += 1
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
            self._dispatcher.counts.failed += 1
        job.set_exception(error)
