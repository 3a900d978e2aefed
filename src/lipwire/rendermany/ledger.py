"""What was rendered already: a file with a line a video, kept beside the table."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from lipwire.domain import InvalidInput, StorageFailed
from lipwire.domain.closing import Closing

_KEPT: Final = ("out", "key", "size_bytes")


@dataclass(frozen=True, slots=True)
class _Entry:
    key: str
    size_bytes: int


class Ledger(Closing):
    """Records which videos of a table are finished, in a file with a line for each video that
    survives a power cut. A context manager, which is open in one process at a time. A video is
    known by its path as text, just as ``add`` was given it."""

    def __init__(self, path: Path) -> None:
        """``path`` is the file; it need not exist, its folder has to. Raises InvalidInput where
        another process has it open, StorageFailed where it cannot be written."""
        self._path = path
        if not path.parent.is_dir():
            raise StorageFailed(f"{path}: there is no folder {path.parent}")
        if path.exists() and not path.is_file():
            raise StorageFailed(f"{path}: it is there and no file")
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InvalidInput(f"{path} is in use: another run renders this table") from None
        except OSError as error:
            raise StorageFailed(f"{path}: {error.strerror}") from None
        try:
            with self._failures():
                self._entries = dict(_read(path))
                self._file = path.open("ab")
                self._end_line()
        except BaseException:
            self._lock.release()
            raise

    def has(self, out: Path, key: str) -> bool:
        """Return whether the video ``out`` was added under ``key`` (``RenderJob.key``) and its file
        is there with as many bytes as then. False where the last ``add`` of ``out`` had another
        key: the video would be another one now."""
        entry = self._entries.get(str(out))
        if entry is None or entry.key != key:
            return False
        try:
            return out.stat().st_size == entry.size_bytes
        except OSError:
            return False

    def knows(self, out: Path) -> bool:
        """Return whether the video ``out`` was ever added, by this run or an earlier one, under
        whatever key, and whether or not its file is still there."""
        return str(out) in self._entries

    def add(self, out: Path, key: str, size_bytes: int) -> None:
        """Record that the video ``out`` is finished under ``key`` (``RenderJob.key``), with
        ``size_bytes`` bytes; ``has`` and ``knows`` say so from now on, in later runs too. Returns
        when the record is on the disk. Raises StorageFailed where it cannot be written."""
        line = json.dumps({"out": str(out), "key": key, "size_bytes": size_bytes})
        with self._failures():
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self._entries[str(out)] = _Entry(key, size_bytes)

    def close(self) -> None:
        """Close the file, and let other processes open it. Closing twice is allowed."""
        self._file.close()
        self._lock.release()

    def _end_line(self) -> None:
        """A line that a power cut has left half written must not spoil the next one."""
        if self._file.tell():
            with self._path.open("rb") as written:
                written.seek(-1, os.SEEK_END)
                if written.read() != b"\n":
                    self._file.write(b"\n")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageFailed(f"{self._path}: {error.strerror}") from None


def _read(path: Path) -> Iterator[tuple[str, _Entry]]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            said: Any = json.loads(line)
            out, key, size_bytes = (said[name] for name in _KEPT)
        except (ValueError, KeyError, TypeError):  # cut off
            continue
        if isinstance(out, str) and isinstance(key, str) and isinstance(size_bytes, int):
            yield out, _Entry(key, size_bytes)
