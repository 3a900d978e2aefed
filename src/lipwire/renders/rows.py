"""Rows of the list of jobs, and what they say."""

import sqlite3
from typing import Any, Final

from lipwire.domain import NotFound
from lipwire.renders.job import Failure, Job, Order, Video

NO_RENDER: Final = "there is no such render"
FIELDS: Final = (
    "id, tenant, subject, avatar, format, fingerprint, text, start_frame, webhook, key, state,"
    " created_s, started_s, ended_s, starts, tries, done_frames, frames, code, detail,"
    " sha256, playlist, cached,"
    " (SELECT size_bytes FROM videos WHERE videos.sha256 = renders.sha256) AS size_bytes"
)


def one_of(connection: sqlite3.Connection, job_id: str, tenant: str) -> Job:
    """Return the job ``job_id`` of ``tenant`` (empty: of any), read from the database
    ``connection``. Raises NotFound where there is no such job; the message does not tell whether it
    is another tenant's."""
    row = connection.execute(
        f"SELECT {FIELDS} FROM renders WHERE id = ? AND (? = '' OR tenant = ?)",
        (job_id, tenant, tenant),
    ).fetchone()
    if row is None:
        raise NotFound(NO_RENDER)
    return job_of(row)


def job_of(row: Any) -> Job:
    """Return the job of ``row``, an ``sqlite3.Row`` of the table ``renders`` that was selected with
    ``FIELDS``."""
    order = Order(
        tenant=row["tenant"],
        subject=row["subject"],
        avatar=row["avatar"],
        format=row["format"],
        fingerprint=row["fingerprint"],
        text=row["text"],
        start_frame=row["start_frame"],
        webhook=row["webhook"],
        key=row["key"],
    )
    return Job(
        row["id"],
        order,
        row["state"],
        row["created_s"],
        row["started_s"],
        row["ended_s"],
        row["starts"],
        row["tries"],
        row["done_frames"],
        row["frames"],
        None if row["code"] is None else Failure(row["code"], row["detail"]),
        None if row["sha256"] is None else Video(row["sha256"], row["size_bytes"], row["playlist"]),
        bool(row["cached"]),
    )


def count_of(connection: sqlite3.Connection, where: str, *values: object) -> int:
    """Return for how many jobs in the database of ``connection`` the SQL condition ``where`` holds,
    with ``values`` in place of its question marks. ``where`` must not contain text that a client
    has sent."""
    (count,) = connection.execute(f"SELECT COUNT(*) FROM renders WHERE {where}", values).fetchone()
    return int(count)


def bytes_of(connection: sqlite3.Connection) -> int:
    """Return how many bytes the files of all jobs take, by the database of ``connection``:
    recordings of jobs that have not ended, and videos, each counted once."""
    (size,) = connection.execute(
        "SELECT (SELECT COALESCE(SUM(size_bytes), 0) FROM videos)"
        " + (SELECT COALESCE(SUM(input_bytes), 0) FROM renders"
        " WHERE state IN ('queued', 'running'))"
    ).fetchone()
    return int(size)
