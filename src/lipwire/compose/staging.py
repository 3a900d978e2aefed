"""Writing so that a name shows either the finished work or what it showed before.

What is being written lies beside its target under a name of its own (``.lipwire-....part``), on
the same file system, and takes the target's name in one step when it is done. On any way out but
success it is removed.
"""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from lipwire.domain import InvalidInput, StorageFailed

FRAME_NAME = re.compile(r"frame_\d{6,}\.jpg")
"""What a folder of frames consists of."""


@contextlib.contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn OSError into StorageFailed that names ``target`` as the caller gave it.

    PyAV's errors of the file system are OSErrors too.
    """
    try:
        yield
    except OSError as error:
        raise storage_failed(error, target) from error


def storage_failed(error: OSError, target: Path) -> StorageFailed:
    """One line for a person: what could not be written, and why."""
    if error.errno == errno.ENOENT:
        return StorageFailed(f"cannot write {target}: folder {target.parent} does not exist")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StorageFailed(f"cannot write {target}: {reason}")


def stage_file(target: Path) -> Path:
    """A new empty file beside ``target``, to be written and then given to ``publish_file``.

    Raises StorageFailed when the folder is missing or may not be written to, InvalidInput when
    ``target`` is a folder.
    """
    staged = _beside(target)
    with storage_errors(target):
        if target.is_dir():
            raise InvalidInput(f"cannot write {target}: it is a folder, a file's name is needed")
        # O_EXCL: never someone else's file. 0o666 is cut by the umask, as for any new file.
        os.close(os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return staged


def publish_file(staged: Path, target: Path) -> None:
    """Give the finished file its name; a file of that name is replaced. Raises StorageFailed."""
    with storage_errors(target):
        _sync(staged)
        staged.replace(target)


def stage_folder(target: Path) -> Path:
    """A new empty folder beside ``target``, to be filled and then given to ``publish_folder``.

    Raises StorageFailed when the parent folder is missing or may not be written to, InvalidInput
    when ``target`` exists and is something other than a folder of frames.
    """
    _check_replaceable(target)
    staged = _beside(target)
    with storage_errors(target):
        staged.mkdir()
    return staged


def publish_folder(staged: Path, target: Path) -> None:
    """Give the finished folder its name; a folder of frames of that name is replaced.

    Raises StorageFailed, or InvalidInput when ``target`` has become something else meanwhile.
    """
    _check_replaceable(target)
    with storage_errors(target):
        if not target.exists():
            staged.rename(target)
            return
        aside = _beside(target)
        target.rename(aside)
        try:
            staged.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def discard(staged: Path) -> None:
    """Remove what was staged, whatever state it is in; never raises an OSError."""
    with contextlib.suppress(OSError):
        if staged.is_dir():
            shutil.rmtree(staged, ignore_errors=True)
        else:
            staged.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """A free name in the same folder, short enough for every file system."""
    return target.parent / f".lipwire-{secrets.token_hex(8)}.part"


def _check_replaceable(target: Path) -> None:
    with storage_errors(target):
        if not target.exists():
            return
        if not target.is_dir():
            raise InvalidInput(f"cannot write {target}: it is a file, a folder's name is needed")
        for entry in target.iterdir():
            if not FRAME_NAME.fullmatch(entry.name):
                raise InvalidInput(
                    f"cannot write {target}: it holds {entry.name!r}; "
                    "only an empty folder or one of frame_NNNNNN.jpg files is replaced"
                )


def _sync(path: Path) -> None:
    """Have the bytes on the disk before the name: some file systems find out only then."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
