"""The renders of one process: taken in, made by its workers, kept, and removed."""

import hashlib
import json
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from lipwire.domain import (
    Call,
    Cancelled,
    InvalidInput,
    LipwireError,
    NotFound,
    StorageFailed,
)
from lipwire.domain.closing import Closing
from lipwire.domain.names import canonical_name
from lipwire.domain.newfiles import remove
from lipwire.renders.cache import Looked, RenderCache
from lipwire.renders.database import Database
from lipwire.renders.files import RenderFiles
from lipwire.renders.job import ENDED, SUFFIXES, Failure, Job, JobCounts, Order, State
from lipwire.renders.joblist import Held, JobList, new_id
from lipwire.renders.removals import Removals
from lipwire.renders.rendering import Made, Progressed
from lipwire.renders.sharing import Sharing
from lipwire.renders.told import Telling
from lipwire.renders.webhooks import WebhookRules, Webhooks

_LOG: Final = logging.getLogger(__name__)
_LOOK_EVERY_S: Final = 1.0
"""How often progress is written down, and it is looked for what other processes have done."""
_LEAVE_S: Final = 10.0
MOST_TRIES: Final = 6
"""How often a job is tried that fails for want of room or of a server."""
_NO_DISK: Final = "the server's disk has no room for it, or cannot be read or written"
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 300.0
_UNKNOWN_EVERY_S: Final = 3600.0


class Makes(Protocol):
    """Makes the video of a job. ``Rendering`` is one such class."""

    def make(self, job: Job, call: Call, progress: Progressed, max_duration_s: float) -> Made:
        """Make the video of ``job``, of speech that may last ``max_duration_s`` seconds, as a part
        of ``call``, whose end ends the render, and return it. ``progress(done, frames)`` is called
        with how many frames are made and how many there will be. For errors see ``Rendering.make``.
        """
        ...


@dataclass(frozen=True, slots=True)
class RenderRules:
    """Limits of a server's renders: at most ``max_queued`` jobs wait at a time,
    ``max_queued_of_tenant`` of one tenant (None: no other limit); this process makes ``workers`` at
    a time, each of ``max_duration_s`` seconds at most; those that have ended are kept for
    ``retention_s`` seconds; and the files of all take ``disk_budget_bytes`` at most (None: no
    limit)."""

    max_queued: int = 100
    max_queued_of_tenant: int | None = None
    workers: int = 1
    max_duration_s: float = 1800
    retention_s: float = 7 * 86_400
    disk_budget_bytes: int | None = None


@dataclass(slots=True, eq=False)
class _Running:
    call: Call
    done_frames: int = 0
    frames: int = 0


class Renders(Closing):
    """Accepts orders of renders, makes the videos in threads of its own, and keeps them.
    Thread-safe; a context manager. Several processes may share one folder: each job is made by one
    of them, and when one is killed, the others, or the next to start, make what it had begun.

    Where a method has ``tenant: str = ""``, a job of another tenant counts as not there, and an
    empty tenant stands for all. All methods raise StorageFailed where the database or the disk
    cannot be used.
    """

    def __init__(
        self,
        files: RenderFiles,
        rules: RenderRules,
        makes: Makes,
        *,
        telling: Telling | None = None,
        webhooks: WebhookRules | None = None,
        cache: RenderCache | None = None,
        ended: Callable[[Job], object] = lambda job: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``files`` are those of the folder, and closed with this; ``rules`` has the limits, and
        ``makes`` makes the videos. ``telling`` describes jobs to clients (None: with paths of this
        server, not signed), and ``webhooks`` says who is told of ends (None: nobody).
        ``cache`` has finished videos of other servers, too; None where each is made.
        ``ended(job)`` is called for each job that this process has made, or given up. ``now()``
        gives seconds since 1970. Raises StorageFailed where the folder cannot be used."""
        self.folder: Final = files.folder
        """Where all is kept."""
        self.telling: Final = telling or Telling()
        self.takes_webhooks: Final = webhooks is not None and webhooks.of_orders
        """Whether an order may name a URL that is told of its end."""
        self._files = files
        self._rules = rules
        self._makes = makes
        self._cache = cache
        self._ended = ended
        self._now = now
        self._wake = threading.Condition()
        self._closed = threading.Event()
        self._running: dict[str, _Running] = {}
        self._ends: Counter[State] = Counter()
        self._unsettled: list[Callable[[], object]] = []
        """What could not be written down of jobs that have ended, as the disk was full."""
        self._looked_for_unknown_s: float | None = None
        with ExitStack() as stack:
            stack.push(files)
            database = stack.enter_context(Database(files.database))
            self._jobs = JobList(
                database,
                max_queued=rules.max_queued,
                max_queued_of_tenant=rules.max_queued_of_tenant,
                disk_budget_bytes=rules.disk_budget_bytes,
                tell=lambda job: (
                    () if webhooks is None else webhooks.told(job, self.telling.told(job))
                ),
                now=now,
            )
            self._removals = Removals(database)
            self.sweep()
            self._webhooks = (
                None
                if webhooks is None
                else stack.enter_context(Webhooks(database, webhooks, now=now))
            )
            self._threads = [
                threading.Thread(target=self._work, name="lipwire-renders", daemon=True)
                for _ in range(rules.workers)
            ]
            self._threads.append(
                threading.Thread(target=self._watch, name="lipwire-renders-watch", daemon=True)
            )
            for thread in self._threads:
                thread.start()
            self._sharing = (
                None
                if cache is None
                else stack.enter_context(
                    Sharing(
                        cache,
                        self._jobs,
                        self._removals,
                        keep=self._answer,
                        forget=self._removed,
                        now=now,
                    )
                )
            )
            self._stack = stack.pop_all()

    def submit(self, order: Order, pcm: npt.NDArray[np.int16] | None, rate_hz: int) -> Job:
        """Accept ``order``, with the recording ``pcm``, (n, channels) int16 at ``rate_hz``; where
        the order has a text, ``pcm`` is None and ``rate_hz`` is ignored. Returns its job without
        waiting until it is made: a new job, or, where the order's idempotency key was used before
        for the same order, that order's job. When this returns, the job is on the disk, and
        survives a restart.

        Raises InvalidInput for a recording that is empty or too long, KeyTaken where the key is
        that of another order, Overloaded where too many jobs wait, and StorageFailed where the
        disk, or its budget, has no room.
        """
        if pcm is not None:
            self._check_length(len(pcm) / rate_hz)
        order = replace(order, fingerprint=_fingerprint(order, pcm, rate_hz))
        expected = 0 if pcm is None else pcm.nbytes
        there = self._jobs.check_room(order, expected)  # before anything is written
        if there is not None:
            return there
        job_id = new_id()
        size = 0 if pcm is None else self._files.write_input(job_id, pcm, rate_hz)
        try:
            job = self._jobs.add(job_id, order, size)
        except BaseException:
            self._files.forget_input(job_id)
            raise
        if job.id != job_id:
            self._files.forget_input(job_id)
        elif self._sharing is not None:
            self._sharing.look_for(job_id)
        with self._wake:
            self._wake.notify_all()
        return job

    def _check_length(self, length_s: float) -> None:
        if length_s == 0:
            raise InvalidInput("the audio has 0 samples; allowed is at least one")
        if length_s > self._rules.max_duration_s:
            raise InvalidInput(
                f"it lasts {length_s:.1f} s; allowed are {self._rules.max_duration_s:g}"
                " (renders.max_duration)"
            )

    def find(self, job_id: str, tenant: str = "") -> Job:
        """Return the job ``job_id`` of ``tenant`` (empty: of any), as it is now. Raises NotFound
        where there is none."""
        return self._jobs.find(job_id, tenant)

    def every(self, tenant: str = "", *, before: str = "", most: int = 100) -> list[Job]:
        """Return up to ``most`` jobs of ``tenant`` (empty: of all), newest first. Where ``before``,
        the id of a job, is not empty, only jobs older than that one. Raises NotFound where there is
        no job ``before`` of the tenant."""
        return self._jobs.every(tenant, before=before, most=most)

    def ends(self) -> dict[State, int]:
        """Return how many renders have ended in this process, since this object was made, as
        "done", "failed" and "cancelled"; each of the three is there."""
        with self._wake:
            return {state: self._ends[state] for state in sorted(ENDED)}

    def counts(self) -> JobCounts:
        """Return how many jobs wait, how many are being made, in all processes, and how many bytes
        the files of all jobs take."""
        return self._jobs.counts()

    def file(self, job: Job) -> Path:
        """Return the path of the video of ``job``, for reading only, because one file may be that
        of several jobs. Raises NotFound where the job has no video, or its file is no longer there.
        """
        if job.video is None:
            raise NotFound(f"the render has no video; it is {job.state}")
        path = self._files.video(job.video.sha256, SUFFIXES[job.order.format])
        if not path.is_file():
            raise NotFound("the video is not there any more")
        return path

    def cancel(self, job_id: str, tenant: str = "") -> Job:
        """Cancel the job ``job_id`` of ``tenant`` (empty: of any), if it has not ended, and return
        it as it is afterwards. A process that is making it stops soon; this does not wait for it.
        Raises NotFound where there is no such job."""
        before = self._jobs.find(job_id, tenant)
        job = self._jobs.cancel(job_id, tenant)
        if job.state == "cancelled" and not before.has_ended:
            self._forget([job_id])
            self._count(job)
            self._notify_webhooks()
        return job

    def remove(self, job_id: str, tenant: str = "") -> None:
        """Remove the job ``job_id`` of ``tenant`` (empty: of any), whatever its state, and its
        video where no other job has the same one. A copy that servers share is removed soon
        afterwards. Raises NotFound where there is no such job."""
        self._jobs.remove(job_id, tenant)
        self._hide_removed()
        self._removed([job_id])

    def remove_all(self, *, tenant: str | None = None, avatar: str | None = None) -> int:
        """Remove all jobs that are both of ``tenant`` and of the avatar named ``avatar``, also
        those that wait or are being made, with their videos, and return how many jobs there were on
        this server. None stands for any tenant or avatar (both None: all jobs are removed); an
        empty ``tenant`` is the tenant with the empty name. Where one of the two is None and the
        other is not, other servers that share the cache remove theirs soon, too."""
        name = None if avatar is None else canonical_name(avatar)
        removed = self._jobs.remove_all(tenant=tenant, avatar=name)
        self._hide_removed()
        self._removed(removed)
        return len(removed)

    def held(self, avatar: str) -> Held:
        """Return how many renders of the avatar named ``avatar`` there are, and how many bytes
        their files take."""
        return self._jobs.held(canonical_name(avatar))

    def sweep(self) -> None:
        """Remove jobs that ended more than ``rules.retention_s`` seconds ago, with their videos,
        and, once an hour at most, files that belong to no job. Jobs that a process had begun when
        it was killed wait for their turn again. To be called regularly, such as each minute; the
        constructor calls it once."""
        for owner in self._jobs.owners() | set(self._files.other_owners()):
            if self._files.has_ended(owner):
                taken_back = self._jobs.take_back(owner)
                if taken_back:
                    _LOG.warning("%d renders of a process that has ended wait again", taken_back)
        self._removed(self._jobs.remove_ended(self._now() - self._rules.retention_s))
        if self._cache is None:
            self._removals.clear()
        last_s = self._looked_for_unknown_s
        if last_s is None or self._now() - last_s > _UNKNOWN_EVERY_S:
            self._looked_for_unknown_s = self._now()
            self._jobs.among(self._files.remove_unknown)
        with self._wake:
            self._wake.notify_all()

    def close(self) -> None:
        """Stop making videos; jobs that were begun wait for the next start. Closes the
        ``RenderFiles`` too. Waits 10 s at most for each thread, because a driver or a disk that
        hangs must not keep a server from ending. Closing twice is allowed."""
        with self._wake:
            self._closed.set()
            running = list(self._running.values())
            self._wake.notify_all()
        for one in running:
            one.call.end()
        for thread in self._threads:
            thread.join(_LEAVE_S)
        self._stack.close()

    def _work(self) -> None:
        while True:
            job = None
            try:
                job = self._jobs.claim(self._files.owner) if not self._closed.is_set() else None
            except LipwireError as error:
                _LOG.warning("renders wait: %s", error)
            if job is not None:
                self._make(job)
                continue
            with self._wake:
                if self._closed.is_set():
                    return
                self._wake.wait(_LOOK_EVERY_S)

    def _make(self, job: Job, found: Made | None = None) -> None:
        """Make the video of ``job``, unless one is there already, and keep it."""
        call = Call(None, service="render", tenant=job.order.tenant)
        one = _Running(call)
        with self._wake:
            self._running[job.id] = one
            if self._closed.is_set():
                call.end()

        def progress(done: int, frames: int) -> None:
            one.done_frames, one.frames = done, frames
            call.check()

        made = found
        try:
            looked = None
            if made is None and self._cache is not None:
                looked = self._cache.look(job)
                made = None if looked is None else self._cache.fetch(looked, job)
            if made is None:
                if self._cache is not None:
                    self._cache.count("away" if looked is None else "miss")
                made = self._makes.make(job, call, progress, self._rules.max_duration_s)
            self._keep(job, made, looked)
        except Cancelled:
            if self._closed.is_set():
                self._settle(partial(self._jobs.put_back, job.id, self._files.owner))
        except LipwireError as error:
            self._failed(job, error)
        except Exception:
            incident = secrets.token_hex(4)
            _LOG.exception("render %s failed; incident %s", job.id, incident)
            failure = Failure("INTERNAL", f"the server's log has it under {incident}")
            self._settle(partial(self._fail, job, failure))
        finally:
            call.end()
            with self._wake:
                del self._running[job.id]
            if made is not None:
                remove(made.path)

    def _keep(self, job: Job, made: Made, looked: Looked | None) -> None:
        owner, video, suffix = self._files.owner, made.video, SUFFIXES[job.order.format]
        if not self._jobs.advance(job.id, owner, made.frames, made.frames):
            return
        keep = partial(self._files.keep, made.path, video.sha256, suffix)
        done = self._jobs.finish(job.id, owner, video, suffix, keep, shared=made.shared)
        if done is None:
            return
        self._has_ended(done)
        if self._cache is not None and made.shared:
            self._cache.count("hit")
        elif self._cache is not None and looked is not None:
            self._cache.publish(done, looked, made, partial(self._jobs.share, job.id))

    def _failed(self, job: Job, error: LipwireError) -> None:
        if not error.retryable or job.tries + 1 >= MOST_TRIES:
            _LOG.info("render %s failed: %s", job.id, error)
            self._settle(partial(self._fail, job, Failure(error.code, self._public(error))))
            return
        after_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**job.tries)
        _LOG.warning("render %s is tried again in %g s: %s", job.id, after_s, error)
        self._settle(
            partial(self._jobs.put_back, job.id, self._files.owner, after_s=after_s, failed=True)
        )

    def _public(self, error: LipwireError) -> str:
        """What clients are told of an error: no path of this machine."""
        text = str(error)
        return _NO_DISK if str(self._files.folder) in text else text

    def _fail(self, job: Job, failure: Failure) -> None:
        failed = self._jobs.fail(job.id, self._files.owner, failure)
        if failed is not None:
            self._has_ended(failed)

    def _has_ended(self, job: Job) -> None:
        self._files.forget_input(job.id)
        self._count(job)
        self._notify_webhooks()
        try:
            self._ended(job)
        except Exception:
            _LOG.exception("the end of render %s was not recorded", job.id)

    def _settle(self, write: Callable[[], object]) -> None:
        """Write down what has come of a job, later where the disk is full."""
        try:
            write()
        except StorageFailed as error:
            _LOG.error("what has come of a render is written down later: %s", error)
            with self._wake:
                self._unsettled.append(write)

    def _watch(self) -> None:
        """Write down progress, and stop what was cancelled elsewhere."""
        while not self._closed.wait(_LOOK_EVERY_S):
            with self._wake:
                running = dict(self._running)
                unsettled, self._unsettled = self._unsettled, []
            for write in unsettled:
                self._settle(write)
            for job_id, one in running.items():
                with suppress(StorageFailed):
                    if not self._jobs.advance(
                        job_id, self._files.owner, one.done_frames, one.frames
                    ):
                        one.call.end()

    def _forget(self, job_ids: list[str]) -> None:
        """Stop making jobs that are not wanted any more, and remove their recordings."""
        with self._wake:
            calls = [self._running[one].call for one in job_ids if one in self._running]
        for call in calls:
            call.end()
        for job_id in job_ids:
            self._files.forget_input(job_id)

    def _removed(self, job_ids: list[str]) -> None:
        """Have nothing left of jobs that were taken from the list."""
        self._forget(job_ids)
        self._jobs.collect(self._files.remove_video)

    def _hide_removed(self) -> None:
        if self._sharing is not None:
            self._sharing.hide_removed()

    def _answer(self, job_id: str, made: Made) -> None:
        """Give the job ``job_id``, if it waits, a video that is there already."""
        try:
            job = self._jobs.claim(self._files.owner, job_id)
        except LipwireError as error:
            _LOG.warning("renders wait: %s", error)
            return
        if job is not None:
            self._make(job, made)

    def _count(self, job: Job) -> None:
        with self._wake:
            self._ends[job.state] += 1

    def _notify_webhooks(self) -> None:
        if self._webhooks is not None:
            self._webhooks.notify()


def _fingerprint(order: Order, pcm: npt.NDArray[np.int16] | None, rate_hz: int) -> str:
    """A hash of all that somebody asks for, whoever asks."""
    anonymous = replace(order, tenant="", subject="", key=None, fingerprint="")
    digest = hashlib.sha256(json.dumps(astuple(anonymous)).encode())
    if pcm is not None:
        digest.update(f"{pcm.shape} {rate_hz}".encode())
        digest.update(np.ascontiguousarray(pcm).data)
    return digest.hexdigest()
