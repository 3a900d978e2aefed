"""The file in which jobs and webhooks are written down: a database of SQLite.

It is shared by all processes of a server. A change is on the disk when it is made (write-ahead log,
synchronised), so that neither SIGKILL nor a power failure takes back what a client was told.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lipwire.domain import StorageFailed
from lipwire.domain.closing import Closing

_VERSION: Final = 2
_BUSY_S: Final = 30.0
"""How long a change waits for those of other processes."""
_TABLES: Final = """
CREATE TABLE renders (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    subject TEXT NOT NULL,
    avatar TEXT NOT NULL,
    format TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    text TEXT,
    start_frame INTEGER NOT NULL,
    webhook TEXT,
    key TEXT,
    input_bytes INTEGER NOT NULL,
    state TEXT NOT NULL,
    created_s REAL NOT NULL,
    not_before_s REAL NOT NULL,
    started_s REAL,
    ended_s REAL,
    starts INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    done_frames INTEGER NOT NULL DEFAULT 0,
    frames INTEGER NOT NULL DEFAULT 0,
    code TEXT,
    detail TEXT,
    sha256 TEXT,
    playlist TEXT NOT NULL DEFAULT '',
    cached INTEGER NOT NULL DEFAULT 0,
    shared TEXT,
    UNIQUE (tenant, key)
);
CREATE INDEX renders_by_state ON renders (state, tenant);
CREATE INDEX renders_by_start ON renders (tenant, started_s);
CREATE INDEX renders_by_video ON renders (sha256);
CREATE TABLE videos (
    sha256 TEXT PRIMARY KEY,
    suffix TEXT NOT NULL,
    size_bytes INTEGER NOT NULL
);
CREATE TABLE webhooks (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    given_by TEXT NOT NULL,
    body TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    next_s REAL NOT NULL
);
CREATE INDEX webhooks_by_time ON webhooks (next_s);
"""
_REMOVALS: Final = """
CREATE TABLE removals (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    at_s REAL NOT NULL,
    UNIQUE (kind, name)
);
"""
_FROM_1: Final = """
ALTER TABLE renders ADD COLUMN cached INTEGER NOT NULL DEFAULT 0;
ALTER TABLE renders ADD COLUMN shared TEXT;
"""
"""What version 2 has more than version 1, besides the removals."""


class Database(Closing):
    """An open database file (SQLite) of renders, which is created where there is none. Thread-safe:
    one thread at a time uses it, in a ``with`` block of ``changing`` or ``reading``, and others
    wait. A context manager."""

    def __init__(self, path: Path) -> None:
        """Raises StorageFailed where ``path`` cannot be opened or written, or is of another
        version of Lipwire."""
        self._lock: Final = threading.RLock()
        self._path: Final = path
        with self._storage_errors():
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
        try:
            with self._storage_errors():
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")
                # What was deleted, texts of tenants for example, is not left in the file.
                self._connection.execute("PRAGMA secure_delete = ON")
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Give the ``with`` block a connection with which it may change the database, as one
        transaction. A context manager. No other process or thread changes anything meanwhile:
        others that do so are waited for, processes for 30 s at most. When the block ends, all
        changes are on the disk; after an error in the block, none. The block may be inside one of
        ``reading``, but not inside one of ``changing``. Raises StorageFailed where the file cannot
        be written, such as on a full disk."""
        with self._lock, self._storage_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give the ``with`` block a connection to read with. Other processes may change things
        between two of its statements. A context manager. Raises StorageFailed where the file cannot
        be read."""
        with self._lock, self._storage_errors():
            yield self._connection

    def close(self) -> None:
        """Close the file; it must not be used after that. Closing twice is allowed."""
        with self._lock:
            self._connection.close()

    def _prepare(self) -> None:
        with self.changing() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == _VERSION:
                return
            if version not in (0, 1):
                raise StorageFailed(
                    f"{self._path.name} is of version {version}; this Lipwire knows {_VERSION}"
                )
            tables = _REMOVALS + (_TABLES if version == 0 else _FROM_1)
            for statement in tables.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StorageFailed(f"the list of renders cannot be used: {error}") from error
