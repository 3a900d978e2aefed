"""What lies in the cache folder of this machine, for all processes that share it: a SQLite file.

Room is reserved before anything is written, so that all together never hold more than the budget.
What is open in any process is pinned, and stays. A process holds the lock of a file of its own for
as long as it lives; the pins of one whose lock is free do not count, so a kill leaves none behind.

What is evicted is renamed into ``removed`` within the transaction that frees its name, and removed
after it: nobody finds half of it, and what a killed process left there the next one removes. A
damaged or missing index is made anew from what lies in the folder.
"""

import logging
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from lipwire.domain import Overloaded, StorageFailed
from lipwire.domain.closing import Closing
from lipwire.domain.newfiles import storage_errors

_LOG: Final = logging.getLogger("lipwire.avatars")
PACKAGES: Final = "packages"
"""The folder below which entries lie."""
_REMOVED: Final = "removed"
_HOLDERS: Final = "holders"
_INDEX: Final = "index.sqlite"
_BUSY_S: Final = 30.0
_WANT_NS: Final = 10_000_000_000
"""For how long it counts that a process wants room."""
_SIZES_KEPT: Final = 50_000
_RETRY_AFTER_S: Final = 2.0
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS entries (
    folder TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, bytes INTEGER NOT NULL,
    used_ns INTEGER NOT NULL, made TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON entries (used_ns);
CREATE TABLE IF NOT EXISTS pins (
    holder TEXT NOT NULL, folder TEXT NOT NULL, PRIMARY KEY (holder, folder));
CREATE TABLE IF NOT EXISTS wants (
    holder TEXT PRIMARY KEY, bytes INTEGER NOT NULL, at_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sizes (folder TEXT PRIMARY KEY, bytes INTEGER NOT NULL);
"""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of an avatar in the cache: the ``folder`` that it lies in, relative to the cache,
    the avatar's ``name`` and the ``version``, the ``size_bytes`` that are reserved for it, and
    ``made``, which is another text each time that the folder was made anew."""

    folder: str
    name: str
    version: str
    size_bytes: int
    made: str


class CacheIndex(Closing):
    """The entries of a cache folder, their sizes, when they were used last, and who has them open.
    Thread-safe; several processes may have one of the same folder. A context manager.

    An entry is a version of an avatar in a folder of its own; ``folder`` in methods is that folder
    relative to the cache's, with forward slashes. To evict an entry is to remove its folder; one
    that any process has pinned is never evicted. Every method but ``close`` and ``unpin`` raises
    StorageFailed where the index's file cannot be read or written.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        *,
        scan: Callable[[Path], tuple[str, str] | None],
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``folder`` is the cache's, and is made where it is missing. Entries of all processes
        together have ``max_bytes`` at most. ``scan`` is called with an entry's folder where the
        index is made anew and returns (the avatar's name, the version) in it; None where it is
        none. ``clock_ns`` is the wall clock's time in nanoseconds. Raises StorageFailed where the
        folder cannot be written to."""
        self.folder: Final = folder
        self.max_bytes: Final = max_bytes
        self._scan = scan
        self._clock_ns = clock_ns
        self._lock = threading.RLock()
        self._pinned: dict[str, tuple[Entry, int]] = {}
        """What this process has open, and how often."""
        self._given_up: dict[str, int] = {}
        """Folders that this process has open no more and that the file still has as pinned, as it
        could not be written then; and when they were used last."""
        self._holder = f"{os.getpid()}-{secrets.token_hex(6)}"
        with storage_errors(folder):
            self._make_folders()
            self._alive = FileLock(folder / _HOLDERS / f"{self._holder}.lock", thread_local=False)
            self._alive.acquire()
        self._inode = 0
        self._db = self._open()

    def close(self) -> None:
        """Give up all pins of this process, and close the index's file. No method may be called
        afterwards."""
        with self._lock:
            if self._pinned or self._given_up:
                with suppress(sqlite3.Error, StorageFailed), self._transaction() as db:
                    db.execute("DELETE FROM pins WHERE holder = ?", (self._holder,))
            self._pinned.clear()
            self._db.close()
            self._alive.release()
            with suppress(OSError):
                (self.folder / _HOLDERS / f"{self._holder}.lock").unlink()

    # -- what is there ---------------------------------------------------------------------------

    def entry(self, folder: str) -> Entry | None:
        """Return the entry in ``folder``; None where there is none."""
        with self._transaction() as db:
            return _entry(db, folder)

    def entries(self) -> list[Entry]:
        """Return all entries, the one that was not used for longest first."""
        with self._transaction() as db:
            rows = db.execute(f"SELECT {_COLUMNS} FROM entries WHERE name != '' ORDER BY used_ns")
            return [Entry(*row) for row in rows]

    def total_bytes(self) -> int:
        """Return how many bytes all entries take or have reserved, including those that are about
        to be removed."""
        with self._transaction() as db:
            return _total(db)

    def known_bytes(self, folder: str) -> int | None:
        """Return how many bytes the entry in ``folder`` had when it was last measured (``resize``),
        also where it was evicted since; None where that is not known."""
        with self._transaction() as db:
            row = db.execute("SELECT bytes FROM sizes WHERE folder = ?", (folder,)).fetchone()
        return None if row is None else int(row[0])

    # -- room ------------------------------------------------------------------------------------

    def pin(self, folder: str, name: str, version: str, size_bytes: int) -> Entry:
        """Reserve room for ``size_bytes`` in ``folder``, where ``version`` of the avatar ``name``
        lies or will lie, pin it for the caller, who calls ``unpin`` once for each pin, and return
        the entry. An entry that exists already keeps its reserved size where that is larger; where
        there is no room, entries that no process has pinned are evicted, the ones not used for
        longest first. Does not wait.

        Raises StorageFailed where ``size_bytes`` is more than the whole budget, and Overloaded
        where too much is pinned: other processes then see in ``wanted_bytes`` that room is wanted.
        """
        if size_bytes > self.max_bytes:
            raise StorageFailed(
                f"avatar {name} needs {size_bytes} bytes in the cache; allowed are"
                f" {self.max_bytes} for all together (store.cache_gb)"
            )
        while True:
            with self._lock:
                with self._transaction() as db:
                    there = _entry(db, folder)
                    wanted = max(size_bytes, 0 if there is None else there.size_bytes)
                    lacking = _total(db) + wanted - self.max_bytes
                    lacking -= 0 if there is None else there.size_bytes
                    made = secrets.token_hex(8) if there is None else there.made
                    entry = Entry(folder, name, version, wanted, made)
                    going: list[str] = []
                    freed = 0
                    if lacking <= 0:
                        self._put(db, entry)
                        db.execute("DELETE FROM wants WHERE holder = ?", (self._holder,))
                    else:
                        going, freed = self._evict(db, lacking, sparing=folder)
                    if freed < lacking:
                        db.execute(
                            "INSERT OR REPLACE INTO wants VALUES (?, ?, ?)",
                            (self._holder, lacking - freed, self._clock_ns()),
                        )
                if lacking <= 0:
                    count = self._pinned.get(folder, (entry, 0))[1]
                    self._pinned[folder] = (entry, count + 1)
                    return entry
            self._remove(going)
            if freed < lacking:
                raise Overloaded(
                    f"no room in the cache for avatar {name}: {size_bytes} bytes are needed, and of"
                    f" {self.max_bytes} (store.cache_gb) too many belong to avatars that are open",
                    retry_after_s=_RETRY_AFTER_S,
                )

    def unpin(self, folder: str) -> None:
        """Give up one pin of ``folder``; do nothing where this process has none. When the last pin
        is given up, now counts as the entry's last use. Where the index cannot be written, the
        change is written later; nothing is raised."""
        with self._lock:
            if folder not in self._pinned:
                return
            entry, count = self._pinned[folder]
            if count > 1:
                self._pinned[folder] = (entry, count - 1)
                return
            del self._pinned[folder]
            self._given_up[folder] = self._clock_ns()
            with suppress(StorageFailed), self._transaction():
                pass  # which writes it down

    def resize(self, folder: str, size_bytes: int) -> bool:
        """Set the size of the entry in ``folder``, which this process has pinned, to
        ``size_bytes``, as measured on the disk. Where all entries are then more than the budget,
        others that nobody has pinned are evicted. Return whether all entries then fit into the
        budget; where they do not, nothing else is done."""
        going: list[str] = []
        with self._lock, self._transaction() as db:
            db.execute("UPDATE entries SET bytes = ? WHERE folder = ?", (size_bytes, folder))
            db.execute("INSERT OR REPLACE INTO sizes VALUES (?, ?)", (folder, size_bytes))
            db.execute(
                "DELETE FROM sizes WHERE rowid <= (SELECT MAX(rowid) FROM sizes) - ?",
                (_SIZES_KEPT,),
            )
            if folder in self._pinned:
                entry, count = self._pinned[folder]
                changed = Entry(folder, entry.name, entry.version, size_bytes, entry.made)
                self._pinned[folder] = (changed, count)
            lacking = _total(db) - self.max_bytes
            if lacking > 0:
                going, freed = self._evict(db, lacking, sparing=folder)
                lacking -= freed
        self._remove(going)
        return lacking <= 0

    def free(self, size_bytes: int) -> int:
        """Evict entries that nobody has pinned, the ones not used for longest first, until
        ``size_bytes`` bytes more are free on the disk, or no such entry is left; return how many
        bytes were freed."""
        with self._lock, self._transaction() as db:
            going, freed = self._evict(db, size_bytes, sparing="", enough=False)
        self._remove(going)
        return freed

    def wanted_bytes(self) -> int:
        """Return how many bytes another process lacked when it tried to pin an entry within the
        last 10 seconds, because too much was pinned: the largest number of all processes, 0 where
        none lacked any. Where it is above 0, a process should close avatars that it has open and
        that nobody uses."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT COALESCE(MAX(bytes), 0) FROM wants WHERE holder != ? AND at_ns > ?",
                (self._holder, self._clock_ns() - _WANT_NS),
            ).fetchone()
        return int(row[0])

    def forget(self, name: str) -> int:
        """Evict all entries of the avatar ``name`` that no process has pinned; return how many of
        its entries are left because they are pinned."""
        with self._lock, self._transaction() as db:
            self._drop_dead(db)
            rows = db.execute(f"SELECT {_COLUMNS} FROM entries WHERE name = ?", (name,)).fetchall()
            found = [Entry(*row) for row in rows]
            held = {row[0] for row in db.execute("SELECT folder FROM pins")}
            going = [self._take(db, each) for each in found if each.folder not in held]
        self._remove(going)
        return len(found) - len(going)

    # -- within a transaction --------------------------------------------------------------------

    def _put(self, db: sqlite3.Connection, entry: Entry) -> None:
        db.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(entry.folder, entry.name, entry.version),
                *(entry.size_bytes, self._clock_ns(), entry.made),
            ),
        )
        db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (self._holder, entry.folder))

    def _evict(
        self, db: sqlite3.Connection, size_bytes: int, *, sparing: str, enough: bool = True
    ) -> tuple[list[str], int]:
        """Take what has to go for ``size_bytes``: where it lies now, and how many bytes it has.
        Nothing is taken where all of it would not be ``enough``."""
        left = db.execute("SELECT folder, bytes FROM entries WHERE name = ''").fetchall()
        going, freed = [str(row[0]) for row in left], sum(int(row[1]) for row in left)
        self._drop_dead(db)
        rows = db.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE name != '' AND folder != ?"
            " AND folder NOT IN (SELECT folder FROM pins) ORDER BY used_ns",
            (sparing,),
        ).fetchall()
        idle = [Entry(*row) for row in rows]
        if enough and freed + sum(each.size_bytes for each in idle) < size_bytes:
            return going, freed
        for each in idle:
            if freed >= size_bytes:
                break
            going.append(self._take(db, each))
            freed += each.size_bytes
        return going, freed

    def _take(self, db: sqlite3.Connection, entry: Entry) -> str:
        """Rename an entry's folder; what it takes counts until it is removed."""
        taken = f"{_REMOVED}/{secrets.token_hex(8)}"
        with suppress(FileNotFoundError):
            (self.folder / entry.folder).rename(self.folder / taken)
        db.execute(
            "UPDATE entries SET folder = ?, name = '', version = '' WHERE folder = ?",
            (taken, entry.folder),
        )
        return taken

    def _drop_dead(self, db: sqlite3.Connection) -> None:
        """Forget the pins of processes that have ended."""
        holders = [row[0] for row in db.execute("SELECT DISTINCT holder FROM pins")]
        for holder in holders:
            if holder == self._holder:
                continue
            path = self.folder / _HOLDERS / f"{holder}.lock"
            if path.exists():
                lock = FileLock(path, thread_local=False)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue  # it lives
                lock.release()
                with suppress(OSError):
                    path.unlink()
            db.execute("DELETE FROM pins WHERE holder = ?", (holder,))
            db.execute("DELETE FROM wants WHERE holder = ?", (holder,))

    def _remove(self, going: list[str]) -> None:
        """Remove what was taken, and count its room as free."""
        for taken in going:
            path = self.folder / taken
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                _LOG.warning("%s cannot be removed; its room is not free", path)
                continue
            with self._transaction() as db:
                db.execute("DELETE FROM entries WHERE folder = ?", (taken,))

    # -- the file --------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _as_storage_failed(self.folder):
            self._reopen_where_gone()
            if self._given_up:
                self._write_given_up()
            with self._begun() as db:
                yield db

    @contextmanager
    def _begun(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk ends it
                db.execute("ROLLBACK")
            raise

    def _write_given_up(self) -> None:
        """Write down which pins were given up; on a full disk, another time."""
        gone = {folder: at for folder, at in self._given_up.items() if folder not in self._pinned}
        with suppress(sqlite3.Error):
            with self._begun() as db:
                db.executemany(
                    "DELETE FROM pins WHERE holder = ? AND folder = ?",
                    [(self._holder, folder) for folder in gone],
                )
                db.executemany(
                    "UPDATE entries SET used_ns = ? WHERE folder = ?",
                    [(at, folder) for folder, at in gone.items()],
                )
            self._given_up.clear()

    def _reopen_where_gone(self) -> None:
        """The folder was removed, or another process has made the index anew: go on with that."""
        with suppress(OSError):
            if (self.folder / _INDEX).stat().st_ino == self._inode:
                return
        self._db.close()
        with storage_errors(self.folder):
            self._make_folders()
        if not (self.folder / _HOLDERS / f"{self._holder}.lock").exists():
            self._alive.release()
            self._alive.acquire()
        self._db = self._open()
        self._db.execute("BEGIN IMMEDIATE")
        for entry, _ in self._pinned.values():
            self._put(self._db, entry)
        self._db.execute("COMMIT")

    def _make_folders(self) -> None:
        # Faces of people: for this user alone.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (PACKAGES, _REMOVED, _HOLDERS):
            (self.folder / each).mkdir(exist_ok=True)

    def _open(self) -> sqlite3.Connection:
        """The index, made anew where it is missing or damaged."""
        path = self.folder / _INDEX
        with FileLock(self.folder / "index.lock", thread_local=False), _as_storage_failed(path):
            new = not path.exists()
            db = None if new else _sound(path)
            if db is None:
                if not new:
                    _LOG.warning("%s is damaged and is made anew", path)
                for each in self.folder.glob(f"{_INDEX}*"):
                    each.unlink()
                db = _connected(path)
                db.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")
                self._rebuild(db)
            self._inode = path.stat().st_ino
        return db

    def _rebuild(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN IMMEDIATE")
        for place in sorted((self.folder / PACKAGES).glob("*/*")):
            folder = place.relative_to(self.folder).as_posix()
            found = self._scan(place)
            name, version = found or ("", "")
            row = (folder, name, version, folder_bytes(place), 0, secrets.token_hex(8))
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
        for place in (self.folder / _REMOVED).glob("*"):
            row = (f"{_REMOVED}/{place.name}", "", "", folder_bytes(place), 0, "")
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
        db.execute("COMMIT")


_COLUMNS: Final = "folder, name, version, bytes, made"


def folder_bytes(folder: Path) -> int:
    """Return how many bytes all files in and below ``folder`` have together; links are not
    followed, and files that are removed meanwhile do not count."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{place}/{name}").st_size
    return total


def _entry(db: sqlite3.Connection, folder: str) -> Entry | None:
    query = f"SELECT {_COLUMNS} FROM entries WHERE folder = ? AND name != ''"
    row = db.execute(query, (folder,)).fetchone()
    return None if row is None else Entry(*row)


def _total(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT COALESCE(SUM(bytes), 0) FROM entries").fetchone()[0])


def _connected(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    # A machine that crashes may damage it; then it is made anew.
    db.execute("PRAGMA synchronous = OFF")
    # The journal keeps its room: where the disk is full, what is there can be used all the same.
    db.execute("PRAGMA journal_mode = PERSIST")
    return db


def _sound(path: Path) -> sqlite3.Connection | None:
    db = None
    try:
        db = _connected(path)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == _VERSION and db.execute("PRAGMA quick_check").fetchone()[0] == "ok":
            return db
    except sqlite3.DatabaseError:
        pass
    if db is not None:
        db.close()
    return None


@contextmanager
def _as_storage_failed(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFailed(f"the index of the cache in {folder} cannot be used: {error}") from None
    except Timeout as error:
        raise StorageFailed(f"the cache in {folder} cannot be locked") from error
