"""Files and folders that appear whole under their names, or not at all.

What is new is written under a temporary name in the folder of its target, flushed to the disk, and
given the target's name in one step. After any error, Ctrl-C included, it is removed, and what the
target was before stays.
"""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from lipwire.domain.errors import StorageFailed

TEMPORARY: Final = ".tmp-"
"""Part of every temporary name, and of no other."""

_LONGEST_SUFFIX: Final = 8
_NOT_FLUSHABLE: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM})
"""What file systems answer that cannot flush a folder, or do not let it be opened."""


@contextmanager
def new_path(target: Path) -> Iterator[Path]:
    """Context manager: yield a path beside ``target`` where nothing is. A file or folder that the
    block makes there is renamed to ``target`` when the block ends without an error, and replaces
    what was there; otherwise it is removed.

    The path has the suffix of ``target``, for programs that recognise the format by it. Raises
    OSError where nothing was made at the path, and where it cannot be written or renamed.
    """
    temporary = temporary_name(target.parent, target.suffix)
    with _published(temporary, target):
        yield temporary


@contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """Context manager: open a binary stream for writing. When the block ends without an error, what
    was written becomes the file ``target`` and replaces one that was there; otherwise it is
    removed. Raises OSError where the file cannot be written, for want of room, permission or its
    folder."""
    with new_path(target) as temporary, temporary.open("xb") as stream:
        yield stream


def write_file(target: Path, data: bytes) -> None:
    """Write ``data`` to the file ``target``, which is replaced whole if it is there. Raises
    StorageFailed where it cannot be written, for want of room, permission or its folder."""
    with storage_errors(target), new_file(target) as stream:
        stream.write(data)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Context manager: make an empty folder under a temporary name beside ``target`` and yield its
    path. When the block ends without an error the folder is renamed to ``target`` and replaces what
    was there; otherwise it is removed. Raises OSError where it cannot be written, for want of room,
    permission or the folder above."""
    temporary = temporary_name(target.parent)
    with _published(temporary, target):
        temporary.mkdir()
        yield temporary


def temporary_name(folder: Path, suffix: str = "") -> Path:
    """Return a path in ``folder`` where there is nothing. The caller makes a file or folder there;
    this function makes none.

    The name is short enough for every file system, and ends in ``suffix`` where that has 8
    characters at most.
    """
    ending = suffix if len(suffix) <= _LONGEST_SUFFIX else ""
    return folder / f".lipwire{TEMPORARY}{secrets.token_hex(8)}{ending}"


def flush(path: Path) -> None:
    """Write to the disk (fsync) what the system still keeps in memory of the file ``path``, or of
    all files in and below the folder ``path``. Raises OSError where that fails: some file systems
    find out only then that there is no room."""
    if not path.is_dir():
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
        return
    for entry in sorted(path.rglob("*")):
        if entry.is_file():
            flush(entry)
    _flush_folder(path)


def publish(temporary: Path, target: Path) -> None:
    """Rename the file or folder ``temporary`` to ``target``, which is replaced if it is there.
    Raises OSError where it cannot be renamed, for example from one disk to another.

    A file replaces a file in one step. What a folder replaces is renamed first and removed
    afterwards; where the folder cannot be renamed it gets its name back.
    """
    if not temporary.is_dir() or not target.exists():
        temporary.replace(target)
        return
    aside = temporary_name(target.parent)
    target.rename(aside)
    try:
        temporary.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    remove(aside)


def remove(path: Path) -> None:
    """Remove the file, the link or the whole folder ``path`` if it is there. Raises nothing: what
    cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Context manager: where the block raises an OSError, raise StorageFailed in its place, with a
    message that names ``target``, the path that the caller gave, and the reason.

    PyAV's errors of the file system are OSErrors, too.
    """
    try:
        yield
    except OSError as error:
        raise storage_failed(error, target) from error


def storage_failed(error: OSError, target: Path) -> StorageFailed:
    """Return, without raising it, a StorageFailed whose message says, in one line, that ``target``
    could not be written and for which reason, that of ``error``."""
    if error.errno == errno.ENOENT:
        folder = followed(target).parent
        return StorageFailed(f"cannot write {target}: folder {folder} does not exist")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageFailed(f"cannot write {target}: {reason}")


def followed(target: Path) -> Path:
    """Return the path that ``target`` leads to where it is a symbolic link, whether something is
    there or not; ``target`` itself where it is no link. Raises OSError for links that lead round in
    a circle."""
    if not target.is_symlink():
        return target
    real = Path(os.path.realpath(target))
    if real.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return real


@contextmanager
def _published(temporary: Path, target: Path) -> Iterator[None]:
    """``temporary`` becomes ``target`` after the block, and is gone in any case."""
    try:
        yield
        flush(temporary)
        publish(temporary, target)
        _flush_folder(target.parent)
    finally:
        remove(temporary)


def _flush_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where its file system can do that."""
    if sys.platform == "win32":
        return  # folders cannot be opened there; NTFS journals the rename
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FLUSHABLE:
            raise
