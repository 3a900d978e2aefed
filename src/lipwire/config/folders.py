"""The user's folders, also for a user who has no home."""

from __future__ import annotations

import functools
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path, user_data_path

from lipwire.domain import StorageFailed

_NAME: Final = "lipwire"
_LOG: Final = logging.getLogger("lipwire.config")
_given: tuple[Path, ...] | None = None
"""What ``use_cache_folders`` was told."""


def cache_folders() -> tuple[Path, ...]:
    """Return the folders in which compiled files and other things that can be made again may lie,
    in the order in which they are searched. Files are written to the last one.

    After ``use_cache_folders`` these are the folders that it was given. Otherwise it is one folder,
    the user's cache folder: ``$XDG_CACHE_HOME/lipwire``, or ``~/.cache/lipwire``, which need not
    exist. Where XDG_CACHE_HOME is not set and ``~/.cache/lipwire`` cannot be written to, for
    example in containers that run with any user id, a second folder follows: ``lipwire-UID`` in the
    folder for temporary files. Where there is no home it is the only one. It is made here and named
    in the log. Raises StorageFailed where it cannot be made, belongs to somebody else, or others
    may write to it.
    """
    if _given is not None:
        return _given
    folder = _known(user_cache_path)
    if folder is None:
        return (_temporary(),)
    if os.environ.get("XDG_CACHE_HOME", "").strip():
        return (folder,)
    if not _is_folder(Path("~").expanduser()):
        return (_temporary(),)
    return (folder,) if _can_be_made(folder) else (folder, _temporary())


def use_cache_folders(folders: tuple[Path, ...]) -> None:
    """Have ``cache_folders`` return ``folders``, in the order in which they are searched, in this
    process from now on. A process that was started by another one is given the folders of that one,
    which may have another folder for temporary files."""
    global _given
    _given = folders


def data_folder() -> Path | None:
    """Return Lipwire's folder for data of the user that is to be kept, which need not exist; None
    where the user has no home. On Linux it is ``$XDG_DATA_HOME/lipwire``, or
    ``~/.local/share/lipwire``."""
    return _known(user_data_path)


def _known(find: Callable[[str], Path]) -> Path | None:
    """What ``find`` of platformdirs says; None where there is neither HOME nor an entry for the
    user in the system's database."""
    try:
        folder = find(_NAME)
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # older ones leave "~" as it is


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # not for this user to see
        return False


def _can_be_made(folder: Path) -> bool:
    """Whether ``folder`` can be written to, or made where it is missing."""
    while not os.path.lexists(folder):
        folder = folder.parent
    return _is_folder(folder) and os.access(folder, os.W_OK | os.X_OK)


def _temporary() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    try:
        folder = Path(tempfile.gettempdir()) / f"{_NAME}-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StorageFailed(
            f"there is no folder for caches: {error.strerror}; set XDG_CACHE_HOME to one"
        ) from error
    # Anybody may make a folder of this name there, and what lies in it is used later.
    if hasattr(os, "getuid") and (
        not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o022
    ):
        raise StorageFailed(
            f"{folder} can be changed by other users and is not used for caches; set XDG_CACHE_HOME"
            " to a folder"
        )
    _say_where(folder)
    return folder


@functools.cache
def _say_where(folder: Path) -> None:
    _LOG.warning("there is no home folder to write to; caches are kept in %s", folder)
