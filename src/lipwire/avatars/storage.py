"""Writing that is either done or never happened, and where compiled avatars lie.

Everything new is written beside its target under a temporary name, flushed to the disk and renamed.
Whoever writes holds the folder's lock, so temporary names met under the lock belong to the dead.
"""

import errno
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from lipwire.domain import StorageFailed

HOME_NAME: Final = ".lipwire"
"""Folder inside a package that holds its compiled form."""

_LOCK_NAME: Final = "lock"
_TEMPORARY: Final = ".tmp-"
_WAIT_STEP_S: Final = 0.2

_REASONS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission to write",
    errno.EPERM: "there is no permission to write",
}


_FORBIDDEN: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the OSError of a failed write into a StorageFailed that names ``target`` and the
    reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or (error.strerror or type(error).__name__).lower()
        raise StorageFailed(f"cannot write {target}; {reason}") from error


def homes(package: Path) -> tuple[Path, Path]:
    """Where a package's compiled form may lie, best first: in the package, in the user's cache."""
    digest = hashlib.blake2b(os.fsencode(package), digest_size=8).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]", "_", package.name)[:40]
    return package / HOME_NAME, user_cache_path("lipwire") / "avatars" / f"{name}-{digest}"


def writable_home(package: Path) -> Path:
    """The first of ``homes`` that can be written to; it exists afterwards.

    Raises StorageFailed where neither can.
    """
    inside, cache = homes(package)
    # A link could send what is written to anywhere: packages come from strangers.
    if not inside.is_symlink():
        try:
            _prepare(inside)
            return inside
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                with storage_errors(inside):
                    raise
    with storage_errors(cache):
        _prepare(cache)
    return cache


def _prepare(home: Path) -> None:
    home.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Opening for writing is the only test that holds for root, ACLs and read-only mounts alike.
    with (home / _LOCK_NAME).open("ab"):
        pass
    ignored = home / ".gitignore"
    if not ignored.exists():
        with suppress(OSError):
            ignored.write_text("*\n")


@contextmanager
def exclusive(home: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of ``home``; ``waiting`` is called now and then while another process has it.

    The kernel gives the lock back when its holder dies. What dead holders left is removed.
    """
    with storage_errors(home):
        lock = FileLock(home / _LOCK_NAME)
        while True:
            try:
                lock.acquire(timeout=_WAIT_STEP_S)
                break
            except Timeout:
                waiting()
    try:
        for leftover in home.glob(f"*{_TEMPORARY}*"):
            remove(leftover)
        yield
    finally:
        lock.release()


@contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """A stream that becomes ``target`` when the block ends well, and nothing otherwise."""
    temporary = _temporary_name(target)
    try:
        with storage_errors(target), temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        with storage_errors(target):
            temporary.replace(target)
            _flush_folder(target.parent)
    finally:
        remove(temporary)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder that becomes ``target`` when the block ends well, and nothing otherwise."""
    temporary, replaced = _temporary_name(target), _temporary_name(target)
    try:
        with storage_errors(target):
            temporary.mkdir()
            yield temporary
            for path in sorted(temporary.rglob("*")):
                if path.is_file():
                    _flush_file(path)
            _flush_folder(temporary)
            if target.exists():  # damaged, or it would have been used
                target.rename(replaced)
            temporary.rename(target)
            _flush_folder(target.parent)
    finally:
        remove(temporary)
        remove(replaced)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there; what cannot be removed is left for the next time."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def now_ns() -> int:
    """The wall clock that file times are compared with."""
    return time.time_ns()


def _temporary_name(target: Path) -> Path:
    return target.with_name(f"{target.name}{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")


def _flush_file(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return  # folders cannot be opened there; NTFS journals the rename
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
