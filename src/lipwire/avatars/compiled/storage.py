"""Where compiled avatars lie, and the lock that whoever writes there holds.

What is written appears whole or not at all (``domain.newfiles``). As only the holder of the lock
writes, files under temporary names were left by processes that were killed, and are removed.
"""

import errno
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from lipwire.config.folders import cache_folders
from lipwire.domain import NotFound, StorageFailed, newfiles
from lipwire.domain.newfiles import TEMPORARY, remove

HOME_NAME: Final = ".lipwire"
"""Folder inside a package that holds its compiled form."""

_LOCK_NAME: Final = "lock"
_LEASE_NAME: Final = "lease"
_WAIT_STEP_S: Final = 0.2
_LEASE_S: Final = 30.0
"""How long a lease is honoured that its holder does not renew; it does so three times as often."""

_REASONS: Final = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than allowed here",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission to write",
    errno.EPERM: "there is no permission to write",
}


_FORBIDDEN: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_OTHER_KIND: Final = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO}
)
"""Where the folder is a file, or the lock in it a folder, a link or a pipe."""
_UNFIT: Final = _FORBIDDEN | _OTHER_KIND


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Context manager: turn an OSError of the block, a failed write, into StorageFailed, whose
    message names ``target`` and the reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0) or (error.strerror or type(error).__name__).lower()
        raise StorageFailed(f"cannot write {target}; {reason}") from error


def homes(
    package: Path, key: str = "", *, foreign: bool = False, own: Path | None = None
) -> tuple[Path, ...]:
    """Return the folders where a package's compiled form may lie, best first; they need not exist.

    The first is in the package, the others are in the user's caches. ``key`` tells avatars apart
    that share the folder ``package`` (``AvatarFiles.key``). Of a ``foreign`` package, one that came
    from a stranger, only the caches are returned, because a compiled form that came with it may be
    anything. Where ``own`` is given (``AvatarFiles.compiled``), it is the only one.
    """
    if own is not None:
        return (own,)
    digest = hashlib.blake2b(os.fsencode(f"{package}\n{key}" if key else package), digest_size=8)
    name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', package.name)[:40]}-{digest.hexdigest()}"
    inside = package / HOME_NAME
    caches = (folder / "avatars" / name for folder in cache_folders())
    with_it = () if foreign else (inside / digest.hexdigest() if key else inside,)
    return *with_it, *caches


def writable_home(
    package: Path,
    key: str = "",
    *,
    foreign: bool = False,
    others: Sequence[Path] = (),
    own: Path | None = None,
) -> Path:
    """Return the first of the folders that ``homes`` names for ``package``, ``key``, ``foreign``
    and ``own`` that can be written to, and make it where it is missing.

    ``others`` are further folders in which files of the avatar lie (``AvatarFiles.folders``). Where
    ``package`` is not there but one of them is, only the user's caches are used, and ``package`` is
    not made. The same is done where the package's own folder for compiled parts is a link.

    Raises NotFound where neither ``package`` nor one of ``others`` is there, because the avatar may
    have been erased meanwhile: nothing of it is made anew. Raises StorageFailed where none can be
    written to, or the disk is full.
    """
    there = package.is_dir()
    if not there and not any(folder.is_dir() for folder in others):
        raise NotFound(f"the avatar's folder {package} is not there any more")
    # A link could send what is written to anywhere: packages come from strangers.
    linked = (package / HOME_NAME).is_symlink()
    tried = homes(package, key, foreign=foreign or linked or not there, own=own)
    for home in tried[:-1]:
        try:
            _prepare(home, within=package)
            return home
        except FileNotFoundError:
            raise NotFound(f"the avatar's folder {package} is not there any more") from None
        except OSError as error:
            if error.errno not in _UNFIT:
                with storage_errors(home):
                    raise
    with storage_errors(tried[-1]):
        _prepare(tried[-1])
    return tried[-1]


def _prepare(home: Path, within: Path | None = None) -> None:
    """Make ``home``, and the folders above it, but none above ``within`` nor that itself."""
    if within is not None and home.is_relative_to(within):
        for above in reversed([each for each in home.parents if each.is_relative_to(within)][:-1]):
            above.mkdir(mode=0o755, exist_ok=True)
        home.mkdir(mode=0o755, exist_ok=True)
    else:
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Opening for writing is the only test that holds for root, ACLs and read-only mounts alike.
    # What lies there may be a stranger's: no link is followed, and no pipe waited for.
    plain = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    os.close(os.open(home / _LOCK_NAME, os.O_WRONLY | os.O_CREAT | plain, 0o666))
    with suppress(OSError), (home / ".gitignore").open("x") as ignored:
        ignored.write("*\n")


@contextmanager
def exclusive(home: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Context manager: hold the lock of the folder ``home``, which has to exist, for the block, so
    that no other process or thread writes there. Waits while another one holds it.

    ``waiting`` is called without arguments about five times a second meanwhile; what it raises ends
    the waiting and is passed on. The lock of a process that dies is free: at once, or after half a
    minute where the file system has no locks and a file that is renewed takes their place. Files
    that such processes left unfinished in ``home`` are removed. Raises StorageFailed where the lock
    cannot be made there.
    """
    with storage_errors(home):
        lock = _lock(home)
        unwritten = _UnwrittenLease(home / _LEASE_NAME)
        while True:
            try:
                lock.acquire(timeout=_WAIT_STEP_S)
                break
            except Timeout:
                unwritten.remove_old()
                waiting()
    try:
        for leftover in home.glob(f"*{TEMPORARY}*"):
            remove(leftover)
        yield
    finally:
        lock.release()


def _lock(home: Path) -> BaseFileLock:
    """The kernel's lock, or a lease where the file system has none.

    A lease is a file that names its holder, who renews it while it works. One that is not renewed
    any more is taken over.
    """
    if _has_flock(home):
        return FileLock(home / _LOCK_NAME)
    return SoftFileLease(home / _LEASE_NAME, lease_duration=_LEASE_S)


class _UnwrittenLease:
    """A lease whose holder's machine died before the name in it was on the disk.

    It is empty, and ``SoftFileLease`` waits for who may still write the name. That takes no time,
    and later the holder would renew it.
    """

    __slots__ = ("_path", "_seen", "_since_s")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._since_s = 0.0

    def remove_old(self) -> None:
        """Remove it where it has been empty and not been renewed for as long as a lease is
        honoured, by this process's clock: those of machines differ."""
        try:
            found = self._path.lstat()
        except OSError:
            return
        seen = (found.st_ino, found.st_mtime_ns)
        if seen != self._seen:
            self._seen, self._since_s = seen, time.monotonic()
        elif not found.st_size and time.monotonic() - self._since_s >= _LEASE_S:
            remove(self._path)


def _has_flock(folder: Path) -> bool:
    """Whether files in ``folder`` can be locked; some network file systems cannot do it.

    A file of one's own is tried: what refuses that one, by whatever error, refuses them all.
    Raises OSError where no file can be made.
    """
    if sys.platform == "win32":
        return True
    import fcntl

    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


@contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """Context manager: open a binary stream for writing. What is written becomes the file
    ``target``, in the place of one that is there, when the block ends without an error, and is
    dropped otherwise. Raises StorageFailed where it cannot be written."""
    with storage_errors(target), newfiles.new_file(target) as stream:
        yield stream


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Context manager: make an empty folder under a temporary name and yield its path. When the
    block ends without an error, the folder is renamed to ``target``, replacing what is there;
    otherwise it is removed. Raises StorageFailed where it cannot be written."""
    with storage_errors(target), newfiles.new_folder(target) as folder:
        yield folder


def now_ns() -> int:
    """Return the time of the wall clock in nanoseconds, with which files' times are compared."""
    return time.time_ns()
