"""Whether a package's files are what they were, at the price of one stat each.

A record beside the compiled form holds each file's size, times and inode with the hash of its
content. While the stat is the same the hash is taken from the record; where it differs the file is
read again. So a file that was touched or copied is not compiled again, and one that was changed
always is.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lipwire.avatars.compiled.storage import new_file, now_ns
from lipwire.domain import AvatarInvalid, StorageFailed
from lipwire.engine import external_files

RECORD_NAME: Final = "inputs.json"
_RECORD_VERSION: Final = 1
_DIGEST_BYTES: Final = 16
_WORKERS: Final = 4
_CLOCK_STEP_NS: Final = 50_000_000
"""The kernel stamps files with a clock that moves every 1 to 10 ms: a file written in the step in
which it was hashed may change again without its times moving."""
_COARSE_CLOCK_STEP_NS: Final = 2_000_000_000
"""The same for file systems that keep whole seconds (FAT: two of them)."""
_SECOND_NS: Final = 1_000_000_000

Stamp = tuple[int, int, int, int]
"""(size, mtime_ns, ctime_ns, inode)."""


@dataclass(slots=True)
class Fingerprints:
    """Content hashes of an avatar's files, recorded so that a file is read only if its size or
    times have changed since. Not thread-safe.

    ``root`` is the package's folder: files in it are recorded by their paths below it, others by
    full path. ``changed`` says whether there is something new to ``save``.
    """

    root: Path
    _entries: dict[str, tuple[Stamp, int, str]] = field(default_factory=dict)
    _outside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By a network's content hash, the files that it keeps weights in, relative to its folder."""
    changed: bool = False

    @classmethod
    def load(cls, root: Path, homes: Iterable[Path]) -> "Fingerprints":
        """Return a ``Fingerprints`` of the package in the folder ``root``, with the hashes that
        ``save`` has recorded in the folders ``homes``.

        Where several folders have a hash of one file, that of the first folder counts. Folders
        without a record and damaged records are left out; nothing is raised.
        """
        known = cls(root)
        for home in homes:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                path = home / RECORD_NAME
                if not path.is_file():  # reading a pipe would wait for ever
                    continue
                record = json.loads(path.read_bytes())
                if record["version"] != _RECORD_VERSION:
                    continue
                for name, (size, mtime, ctime, inode, hashed, digest) in record["files"].items():
                    entry = ((size, mtime, ctime, inode), int(hashed), str(digest))
                    known._entries.setdefault(name, entry)
                for digest, names in record.get("outside", {}).items():
                    known._outside.setdefault(digest, tuple(map(str, names)))
        return known

    def network(self, path: Path) -> list[str]:
        """Return the content hashes, 32 hexadecimal digits each, of the network at ``path`` and
        then of the files that it keeps weights in.

        Files of weights that are missing are left out. Raises AvatarInvalid where one cannot be
        read.
        """
        (digest,) = self.hashes([path])
        if digest not in self._outside:
            self._outside[digest] = external_files(path)
            self.changed = True
        return [digest, *self.hashes(outside_of(path, self._outside[digest]))]

    def hashes(self, paths: Sequence[Path]) -> list[str]:
        """Return the content hash, 32 hexadecimal digits, of the file at each of ``paths``, in
        their order. Raises AvatarInvalid where one is missing, is no file, or cannot be read."""
        found: list[str | None] = []
        unknown: list[int] = []
        prefix = f"{self.root}{os.sep}"
        for index, path in enumerate(paths):
            text = str(path)
            name = text.removeprefix(prefix)
            try:
                status = os.stat(text)  # noqa: PTH116 - half the price of Path.stat
            except OSError as error:
                raise _unreadable(name, error) from error
            if not stat.S_ISREG(status.st_mode):  # a device or a pipe may never end
                raise AvatarInvalid(f"{name} is not a file")
            stamp = _stamp(status)
            entry = self._entries.get(name)
            if entry is not None and entry[0] == stamp and _settled(stamp, entry[1]):
                found.append(entry[2])
            else:
                found.append(None)
                unknown.append(index)
        if unknown:
            self.changed = True
            with ThreadPoolExecutor(_WORKERS, "lipwire-hash") as pool:
                read = pool.map(self._read, [paths[index] for index in unknown])
                for index, entry in zip(unknown, read, strict=True):
                    self._entries[self._name(paths[index])] = entry
                    found[index] = entry[2]
        return [digest for digest in found if digest is not None]

    def save(self, home: Path) -> None:
        """Write all hashes as a record into the folder ``home``, which has to exist; do nothing
        where none of them is new since ``load``.

        Nothing is raised where they cannot be written: then the files are read again the next time.
        """
        if not self.changed:
            return
        record: dict[str, Any] = {
            "version": _RECORD_VERSION,
            "files": {
                name: (*stamp, hashed, digest)
                for name, (stamp, hashed, digest) in self._entries.items()
            },
            "outside": self._outside,
        }
        with suppress(StorageFailed), new_file(home / RECORD_NAME) as stream:
            stream.write(json.dumps(record, separators=(",", ":")).encode())
            self.changed = False

    def _name(self, path: Path) -> str:
        return str(path).removeprefix(f"{self.root}{os.sep}")

    def _read(self, path: Path) -> tuple[Stamp, int, str]:
        hashed_at_ns = now_ns()
        try:
            with path.open("rb") as stream:
                stamp = _stamp(os.fstat(stream.fileno()))
                digest = hashlib.file_digest(
                    stream, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)
                ).hexdigest()
        except OSError as error:
            raise _unreadable(self._name(path), error) from error
        return stamp, hashed_at_ns, digest


def outside_of(network: Path, names: Iterable[str]) -> list[Path]:
    """Return the paths of those files among ``names``, paths relative to the folder of the
    network's file ``network``, that exist in that folder or below it; others, and those that lead
    out of it, are left out."""
    inside = (
        name
        for name in names
        if name and "\0" not in name and not {"..", os.sep} & set(Path(name).parts)
    )
    return [path for path in (network.parent / name for name in inside) if path.is_file()]


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _settled(stamp: Stamp, hashed_at_ns: int) -> bool:
    """Whether the file was old enough when it was hashed for its times to show any later change."""
    _, mtime_ns, ctime_ns, _ = stamp
    whole_seconds = mtime_ns % _SECOND_NS == 0 and ctime_ns % _SECOND_NS == 0
    step_ns = _COARSE_CLOCK_STEP_NS if whole_seconds else _CLOCK_STEP_NS
    return max(mtime_ns, ctime_ns) + step_ns <= hashed_at_ns


def _unreadable(name: str, error: OSError) -> AvatarInvalid:
    reason = (error.strerror or type(error).__name__).lower()
    return AvatarInvalid(f"{name} cannot be read; {reason}")
