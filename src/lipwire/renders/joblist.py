"""The list of jobs: a bounded queue, those that are rendered, and those that have ended."""

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from lipwire.domain import InvalidInput, Overloaded, StorageFailed
from lipwire.renders.database import Database
from lipwire.renders.job import Failure, Job, JobCounts, Order, State, Video
from lipwire.renders.removals import Kind, note_removal
from lipwire.renders.rows import FIELDS, bytes_of, count_of, job_of, one_of
from lipwire.security.outgoing import GivenBy

MOST_STARTS: Final = 3
"""How often a job is begun whose process ends with it."""
_MIB: Final = 1 << 20


class KeyTaken(InvalidInput):
    """The idempotency key of an order was used for another order."""


@dataclass(frozen=True, slots=True)
class Held:
    """How many renders of an avatar there are, and how many bytes their files take: recordings of
    jobs that have not ended, and videos, each counted once."""

    renders: int
    size_bytes: int


Tell = Callable[[Job], Iterable[tuple[str, GivenBy, str]]]
"""Returns the webhooks that a job's end has: for each its URL, whose that is, and the body."""


class JobList:
    """The jobs (renders that were ordered) of a server, in its database: which is made next, and
    what has come of each. Thread-safe, and shared with the server's other processes. Every change
    is on the disk when its method returns. Methods raise StorageFailed where the database cannot be
    used.

    Tenants take turns: the next job is of the tenant with the fewest jobs that are being rendered;
    among several such tenants, of the one whose last job began longest ago; and of that tenant the
    oldest. An *owner* is a process that renders, by the name that its ``RenderFiles`` has. Ids and
    names of tenants are compared as they are; names of avatars are *canonical*, in Unicode's form
    NFC (``canonical_name``). In the methods that have ``tenant: str = ""``, an empty tenant is any.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_queued: int,
        max_queued_of_tenant: int | None = None,
        disk_budget_bytes: int | None = None,
        tell: Tell = lambda job: (),
        now: Callable[[], float] = time.time,
    ) -> None:
        """``max_queued`` jobs wait at a time, and ``max_queued_of_tenant`` of one tenant (None: as
        many); the files of all jobs take ``disk_budget_bytes`` at most (None: as there is room).
        ``tell(job)`` returns (URL, given_by, body) for each webhook message that the end of a job
        has, as ``WebhookRules.told`` does. ``now()`` gives seconds since 1970."""
        self._database = database
        self._max_queued = max_queued
        self._max_of_tenant = max_queued_of_tenant
        self._budget_bytes = disk_budget_bytes
        self._tell = tell
        self._now = now

    def check_room(self, order: Order, input_bytes: int) -> Job | None:
        """Check whether ``order`` could be added as a new job, whose recording has ``input_bytes``
        bytes (0 for a text), and return None if so. Where the order has a job already, by its
        idempotency key, return that job.

        Nothing is changed, and no room reserved. Raises KeyTaken, Overloaded and StorageFailed
        where ``add`` would.
        """
        with self._database.reading() as connection:
            return self._found_or_room(connection, order, input_bytes)

    def add(self, job_id: str, order: Order, input_bytes: int) -> Job:
        """Put ``order`` into the queue as job ``job_id`` (made with ``new_id``), whose recording
        has ``input_bytes`` bytes (0 for a text), and return the job. Where the order has a job
        already, by its idempotency key, that job is returned, with its own id, and nothing is
        added.

        Raises KeyTaken where the key is that of an order with another ``fingerprint``, Overloaded
        where too many jobs wait, and StorageFailed where the disk, or its budget, has no room.
        """
        with self._database.changing() as connection:
            there = self._found_or_room(connection, order, input_bytes)
            if there is not None:
                return there
            now_s = self._now()
            connection.execute(
                "INSERT INTO renders (id, tenant, subject, avatar, format, fingerprint, text,"
                " start_frame, webhook, key, input_bytes, state, created_s, not_before_s)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
                (
                    job_id,
                    order.tenant,
                    order.subject,
                    order.avatar,
                    order.format,
                    order.fingerprint,
                    order.text,
                    order.start_frame,
                    order.webhook,
                    order.key,
                    input_bytes,
                    now_s,
                    now_s,
                ),
            )
        return Job(job_id, order, "queued", now_s)

    def find(self, job_id: str, tenant: str = "") -> Job:
        """Return the job ``job_id`` of ``tenant`` (empty: of any). Raises NotFound where there is
        no such job; the message does not tell whether it is another tenant's."""
        with self._database.reading() as connection:
            return one_of(connection, job_id, tenant)

    def every(self, tenant: str = "", *, before: str = "", most: int = 100) -> list[Job]:
        """Return up to ``most`` jobs of ``tenant`` (empty: of all), newest first. Where ``before``,
        the id of a job, is not empty, only jobs older than that one. Raises NotFound where the
        tenant has no job ``before``."""
        with self._database.reading() as connection:
            where, values = "(? = '' OR tenant = ?)", [tenant, tenant]
            if before:
                one_of(connection, before, tenant)
                where += " AND rowid < (SELECT rowid FROM renders WHERE id = ?)"
                values.append(before)
            rows = connection.execute(
                f"SELECT {FIELDS} FROM renders WHERE {where} ORDER BY rowid DESC LIMIT ?",
                (*values, most),
            ).fetchall()
        return [job_of(row) for row in rows]

    def counts(self) -> JobCounts:
        """Return how many jobs wait, how many are being rendered, in all processes, and how many
        bytes the files of all jobs take: recordings of those that have not ended, and videos."""
        with self._database.reading() as connection:
            return JobCounts(
                count_of(connection, "state = 'queued'"),
                count_of(connection, "state = 'running'"),
                bytes_of(connection),
            )

    def held(self, avatar: str) -> Held:
        """Return how many renders of ``avatar``, a canonical name, there are in whatever state, and
        how many bytes their files take."""
        with self._database.reading() as connection:
            count, inputs = connection.execute(
                "SELECT COUNT(*), COALESCE(SUM(CASE WHEN state IN ('queued', 'running')"
                " THEN input_bytes ELSE 0 END), 0) FROM renders WHERE avatar = ?",
                (avatar,),
            ).fetchone()
            (videos,) = connection.execute(
                "SELECT COALESCE(SUM(size_bytes), 0) FROM videos WHERE sha256 IN"
                " (SELECT sha256 FROM renders WHERE avatar = ?)",
                (avatar,),
            ).fetchone()
        return Held(int(count), int(inputs) + int(videos))

    def mean_s(self) -> float | None:
        """Return how many seconds the rendering of the last 20 jobs that are done took on average;
        None where no job is done."""
        with self._database.reading() as connection:
            (mean,) = connection.execute(
                "SELECT AVG(ended_s - started_s) FROM (SELECT ended_s, started_s FROM renders"
                " WHERE state = 'done' ORDER BY ended_s DESC LIMIT 20)"
            ).fetchone()
        return None if mean is None else float(mean)

    def claim(self, owner: str, job_id: str = "") -> Job | None:
        """Give a waiting job to the process ``owner``, which renders it from now on (state
        "running"), and return the job: the job ``job_id``, or the next one where that is empty.
        Returns None where no job waits whose time has come, or ``job_id`` is not such a job.
        Returns at once."""
        with self._database.reading() as connection:
            if not count_of(connection, "state = 'queued' AND not_before_s <= ?", self._now()):
                return None
        with self._database.changing() as connection:
            row = connection.execute(
                "SELECT id FROM renders AS one WHERE state = 'queued' AND not_before_s <= ?"
                " AND ? IN ('', id)"
                " ORDER BY (SELECT COUNT(*) FROM renders WHERE tenant = one.tenant"
                " AND state = 'running'),"
                " (SELECT COALESCE(MAX(started_s), 0) FROM renders WHERE tenant = one.tenant),"
                " rowid LIMIT 1",
                (self._now(), job_id),
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE renders SET state = 'running', owner = ?, started_s = ?,"
                " starts = starts + 1, done_frames = 0 WHERE id = ?",
                (owner, self._now(), row["id"]),
            )
            return one_of(connection, row["id"], "")

    def advance(self, job_id: str, owner: str, done_frames: int, frames: int) -> bool:
        """Write down that ``done_frames`` of ``frames`` (0: not known yet) are made of the job
        ``job_id``, which ``owner`` renders. Returns True; returns False, and changes nothing, where
        the job was cancelled, removed, put back or taken from ``owner``, which then has to stop
        rendering it."""
        with self._database.changing() as connection:
            return bool(
                connection.execute(
                    "UPDATE renders SET done_frames = ?, frames = ?"
                    " WHERE id = ? AND owner = ? AND state = 'running'",
                    (done_frames, frames, job_id, owner),
                ).rowcount
            )

    def finish(
        self,
        job_id: str,
        owner: str,
        video: Video,
        suffix: str,
        keep: Callable[[], object],
        *,
        shared: str = "",
    ) -> Job | None:
        """End the job ``job_id``, which ``owner`` renders, as done, with ``video``, write down its
        webhooks, and return it. Returns None, without calling ``keep``, where ``owner`` does not
        render it any more.

        ``keep()`` is called before the job ends, and has to move the file to its place among the
        videos; where it raises an error, that is raised and nothing is changed. ``suffix`` is the
        end of the file's name, such as ".mp4". ``shared`` is the video's name in the store that
        servers share, where it was downloaded from there; empty where it was made here. Raises
        StorageFailed where the file cannot be kept, or the budget has no room for it; the job is
        still "running" then.
        """
        with self._database.changing() as connection:
            mine = connection.execute(
                "SELECT 1 FROM renders WHERE id = ? AND owner = ? AND state = 'running'",
                (job_id, owner),
            ).fetchone()
            if mine is None:
                return None
            known = connection.execute(
                "SELECT 1 FROM videos WHERE sha256 = ?", (video.sha256,)
            ).fetchone()
            if known is None:
                self._check_budget(connection, video.size_bytes)
            keep()
            connection.execute(
                "INSERT OR IGNORE INTO videos VALUES (?, ?, ?)",
                (video.sha256, suffix, video.size_bytes),
            )
            connection.execute(
                "UPDATE renders SET sha256 = ?, playlist = ?, done_frames = frames, cached = ?,"
                " shared = ? WHERE id = ?",
                (video.sha256, video.playlist, bool(shared), shared or None, job_id),
            )
            return self._end(connection, job_id, "done")

    def share(self, job_id: str, name: str) -> bool:
        """Write down that the video of the job ``job_id`` is called ``name`` in the store that
        servers share, so that it is removed from there with the job. Returns True; False where
        there is no such job any more."""
        with self._database.changing() as connection:
            return bool(
                connection.execute(
                    "UPDATE renders SET shared = ? WHERE id = ?", (name, job_id)
                ).rowcount
            )

    def fail(self, job_id: str, owner: str, failure: Failure) -> Job | None:
        """End the job ``job_id``, which ``owner`` renders, as failed because of ``failure``, write
        down its webhooks, and return it. Returns None where ``owner`` does not render it any more.
        """
        with self._database.changing() as connection:
            changed = connection.execute(
                "UPDATE renders SET code = ?, detail = ?"
                " WHERE id = ? AND owner = ? AND state = 'running'",
                (failure.code, failure.detail, job_id, owner),
            ).rowcount
            return self._end(connection, job_id, "failed") if changed else None

    def put_back(
        self, job_id: str, owner: str, *, after_s: float = 0, failed: bool = False
    ) -> None:
        """Have the job ``job_id``, which ``owner`` renders, wait again, as if it had not been
        begun; it is not begun again within ``after_s`` seconds. ``failed`` says that it has failed,
        which counts as one of its ``tries``. Does nothing where ``owner`` does not render the job
        any more."""
        with self._database.changing() as connection:
            connection.execute(
                "UPDATE renders SET state = 'queued', owner = NULL, not_before_s = ?,"
                " started_s = NULL, starts = starts - 1, tries = tries + ?"
                " WHERE id = ? AND owner = ? AND state = 'running'",
                (self._now() + after_s, int(failed), job_id, owner),
            )

    def owners(self) -> set[str]:
        """Return the names of the processes that render a job, including processes that have ended
        meanwhile without finishing it."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT DISTINCT owner FROM renders WHERE state = 'running'")
            return {str(row["owner"]) for row in rows}

    def take_back(self, owner: str) -> int:
        """Have the jobs that ``owner``, a process that has ended, was rendering wait again. Jobs
        that were begun three times fail instead, because they may be why processes ended. Returns
        how many jobs there were, of both kinds together."""
        with self._database.changing() as connection:
            spent = connection.execute(
                "SELECT id FROM renders WHERE state = 'running' AND owner = ? AND starts >= ?",
                (owner, MOST_STARTS),
            ).fetchall()
            for row in spent:
                connection.execute(
                    "UPDATE renders SET code = 'INTERNAL', detail = ? WHERE id = ?",
                    (
                        f"the server ended {MOST_STARTS} times while this was rendered; it is not"
                        " begun again",
                        row["id"],
                    ),
                )
                self._end(connection, row["id"], "failed")
            again = connection.execute(
                "UPDATE renders SET state = 'queued', owner = NULL, started_s = NULL"
                " WHERE state = 'running' AND owner = ?",
                (owner,),
            ).rowcount
            return again + len(spent)

    def cancel(self, job_id: str, tenant: str = "") -> Job:
        """Cancel the job ``job_id`` of ``tenant`` (empty: of any) if it waits or is being rendered,
        and return it as it is afterwards; a job that has ended is returned unchanged. The process
        that renders it learns of this from ``advance``. Raises NotFound where there is no such
        job."""
        with self._database.changing() as connection:
            if one_of(connection, job_id, tenant).has_ended:
                return one_of(connection, job_id, tenant)
            return self._end(connection, job_id, "cancelled")

    def remove(self, job_id: str, tenant: str = "") -> None:
        """Remove the job ``job_id`` of ``tenant`` (empty: of any) from the list, whatever its
        state; a process that renders it learns of this from ``advance``. No file is removed: the
        caller has to remove the recording and call ``collect`` for the video. A video that servers
        share is written down to be removed (``Removals``). Raises NotFound where there is no such
        job."""
        with self._database.changing() as connection:
            one_of(connection, job_id, tenant)
            self._removed(connection, "id = ?", job_id)

    def remove_all(
        self,
        *,
        tenant: str | None = None,
        avatar: str | None = None,
        before_s: float | None = None,
    ) -> list[str]:
        """Remove the jobs that are both of ``tenant`` and of ``avatar``, a canonical name, from
        the list, whatever their state, and return their ids. None stands for any tenant or avatar,
        an empty ``tenant`` for the tenant with the empty name. With ``before_s``, in seconds since
        1970, only jobs ordered before that time are removed, which is for removals that another
        server has begun.

        Processes that render one of the jobs learn of this from ``advance``. No file is removed.
        Videos of the jobs that servers share are written down to be removed (``Removals``).
        """
        with self._database.changing() as connection:
            if before_s is None and (tenant is None) != (avatar is None):
                kind: Kind = "tenant" if avatar is None else "avatar"
                note_removal(connection, kind, tenant or avatar or "", self._now())
            return self._removed(
                connection,
                "(? IS NULL OR tenant = ?) AND (? IS NULL OR avatar = ?)"
                " AND (? IS NULL OR created_s < ?)",
                *(tenant, tenant, avatar, avatar, before_s, before_s),
            )

    def owners_of(self, kind: Kind) -> set[str]:
        """Return the names of all tenants that have jobs, where ``kind`` is "tenant", else the
        names of all avatars that jobs are of."""
        column = "tenant" if kind == "tenant" else "avatar"
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT DISTINCT {column} AS name FROM renders")
            return {str(row["name"]) for row in rows}

    def remove_ended(self, before_s: float) -> list[str]:
        """Remove the jobs that ended (done, failed or cancelled) before ``before_s``, in seconds
        since 1970, from the list, and return their ids. No file is removed: ``collect`` finds the
        videos that no job has any more. A video that such a job has put into the cache that servers
        share (``RenderCache``) is written down to be removed from there (``Removals``); a video
        that it was given from the cache stays in the cache."""
        with self._database.changing() as connection:
            # A video that was taken from the shared ones goes from there with the job that made it.
            connection.execute(
                "UPDATE renders SET shared = NULL WHERE ended_s < ? AND cached", (before_s,)
            )
            return self._removed(connection, "ended_s < ?", before_s)

    def _removed(self, connection: sqlite3.Connection, where: str, *values: object) -> list[str]:
        """Take jobs from the list and return their ids; their shared videos are to be removed."""
        rows = connection.execute(
            f"DELETE FROM renders WHERE {where} RETURNING id, shared", values
        ).fetchall()
        for row in rows:
            if row["shared"] is not None:
                note_removal(connection, "video", row["shared"], self._now())
        return [row["id"] for row in rows]

    def collect(self, remove: Callable[[str, str], object]) -> int:
        """Call ``remove(sha256, suffix)``, which has to remove the file, for each video that no job
        has any more, forget these videos, and return how many there were. No job is given one of
        them meanwhile. To be called after jobs were removed."""
        with self._database.changing() as connection:
            rows = connection.execute(
                "DELETE FROM videos WHERE sha256 NOT IN"
                " (SELECT sha256 FROM renders WHERE sha256 IS NOT NULL) RETURNING sha256, suffix"
            ).fetchall()
            for row in rows:
                remove(row["sha256"], row["suffix"])
        return len(rows)

    def among(self, work: Callable[[set[str], set[str]], object]) -> None:
        """Call ``work(jobs, videos)`` with the ids of all jobs and the SHA-256 hashes of all
        videos, while no thread of any process adds a job or a video."""
        with self._database.changing() as connection:
            jobs = {row["id"] for row in connection.execute("SELECT id FROM renders")}
            videos = {row["sha256"] for row in connection.execute("SELECT sha256 FROM videos")}
            work(jobs, videos)

    def _found_or_room(
        self, connection: sqlite3.Connection, order: Order, input_bytes: int
    ) -> Job | None:
        if order.key is not None:
            row = connection.execute(
                f"SELECT {FIELDS} FROM renders WHERE tenant = ? AND key = ?",
                (order.tenant, order.key),
            ).fetchone()
            if row is not None:
                if row["fingerprint"] != order.fingerprint:
                    raise KeyTaken(
                        "the Idempotency-Key is that of another order; send a new key with it"
                    )
                return job_of(row)
        queued = count_of(connection, "state = 'queued'")
        if queued >= self._max_queued:
            raise Overloaded(
                f"{queued} renders wait; allowed are {self._max_queued}",
                retry_after_s=self._wait_s(),
            )
        if self._max_of_tenant is not None:
            own = count_of(connection, "state = 'queued' AND tenant = ?", order.tenant)
            if own >= self._max_of_tenant:
                raise Overloaded(
                    f"{own} renders of this tenant wait; allowed are {self._max_of_tenant}",
                    retry_after_s=self._wait_s(),
                )
        self._check_budget(connection, input_bytes)
        return None

    def _wait_s(self) -> float:
        """After how many seconds one of those that wait may have been begun."""
        mean_s = self.mean_s()
        return 10.0 if mean_s is None else min(600.0, max(1.0, mean_s))

    def _check_budget(self, connection: sqlite3.Connection, more_bytes: int) -> None:
        if self._budget_bytes is None:
            return
        used = bytes_of(connection)
        if used + more_bytes > self._budget_bytes:
            raise StorageFailed(
                f"renders take {used / _MIB:.1f} MiB of the disk, and this one"
                f" {more_bytes / _MIB:.1f} more; allowed are {self._budget_bytes / _MIB:.1f}"
                " (renders.disk_budget_mb)"
            )

    def _end(self, connection: sqlite3.Connection, job_id: str, state: State) -> Job:
        """Have a job end in ``state``, and write down whom that is told."""
        connection.execute(
            "UPDATE renders SET state = ?, ended_s = ?, owner = NULL WHERE id = ?",
            (state, self._now(), job_id),
        )
        job = one_of(connection, job_id, "")
        for url, given_by, body in self._tell(job):
            connection.execute(
                "INSERT INTO webhooks (id, url, given_by, body, next_s) VALUES (?, ?, ?, ?, ?)",
                (f"msg_{secrets.token_urlsafe(18)}", url, given_by, body, self._now()),
            )
        return job


def new_id() -> str:
    """Return the id of a new job: 128 random bits as text, which nobody can guess."""
    return secrets.token_urlsafe(16)
