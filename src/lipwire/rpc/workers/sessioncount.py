"""How many live sessions each process of a server has, in files that all of them read."""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lipwire.domain.closing import Closing
from lipwire.rpc.workers.place import WorkerPlace
from lipwire.session.live.counting import check_most

_BYTES: Final = 4
_MODE: Final = 0o600


class SharedCount(Closing):
    """Counts the live sessions of all processes of a server together (a ``SessionCount``).
    Thread-safe; a context manager.

    Each process has a file with its number of sessions, beside its socket, and holds a lock
    (flock(2)) of it, which the system takes back when the process ends, however it ends: the file
    of a dead process counts for nothing. Whoever adds a session holds a lock that all processes
    share meanwhile, so that two of them never take the last place both.
    """

    def __init__(self, place: WorkerPlace) -> None:
        """``place`` is that of this process. Waits while an earlier process of the same place is
        still ending."""
        self._place: Final = place
        self._lock = threading.Lock()
        self._own = 0
        self._adding = os.open(place.folder / "sessions", os.O_RDWR | os.O_CREAT, _MODE)
        self._file = os.open(self._path(place.index), os.O_RDWR | os.O_CREAT, _MODE)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._write()

    def begin(self, most: int | None) -> None:
        """Count one more session of this process; waits while another process counts one. Raises
        Overloaded, with how many run, and counts nothing, where all processes together have
        ``most`` already; None is no limit. Call ``end`` when the session is over."""
        with self._lock, self._alone():
            check_most(self.running, most)
            self._own += 1
            self._write()

    def end(self) -> None:
        """Count one session of this process less: one that ``begin`` counted is over."""
        with self._lock:
            self._own -= 1
            self._write()

    @property
    def running(self) -> int:
        """How many sessions run in all processes of the server now."""
        return sum(self.each().values())

    def each(self) -> dict[int, int]:
        """Return how many sessions each process has now: a dictionary from the process's number
        (from 0) to the count. Processes that do not run are left out; this one is always there."""
        counts = {self._place.index: self._own}
        for index in self._place.others:
            count = _count_in(self._path(index))
            if count is not None:
                counts[index] = count
        return counts

    def close(self) -> None:
        """Close the files of this process: its sessions no longer count in the others. Call nothing
        afterwards."""
        os.close(self._file)
        os.close(self._adding)

    def _path(self, index: int) -> Path:
        return self._place.folder / f"{index}.sessions"

    def _write(self) -> None:
        os.pwrite(self._file, self._own.to_bytes(_BYTES, "little"), 0)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.flock(self._adding, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._adding, fcntl.LOCK_UN)


def _count_in(path: Path) -> int | None:
    """What the process of that file has; None where it is not there."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # Shared: two that look at one moment do not take each other for its process.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int.from_bytes(os.pread(file, _BYTES, 0), "little")
    finally:
        os.close(file)
    return None
