"""Forgetting a person: everything that is kept here of an avatar."""

import os
from dataclasses import dataclass
from pathlib import Path

from lipwire.avatars.compiled.storage import homes
from lipwire.domain import InvalidInput, StorageFailed
from lipwire.domain.newfiles import storage_failed, temporary_name


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder that is kept of an avatar."""

    path: Path
    files: int
    size_bytes: int
    """Of all its files together."""


def kept_of(package: Path) -> list[Kept]:
    """Return the folders that are kept of the avatar in the folder ``package``: its compiled forms
    outside of the package, then the package with all that is in it. Raises InvalidInput where
    ``package`` is a link: what it leads to may be shared."""
    if package.is_symlink():
        raise InvalidInput(
            f"{package} is a link to {package.readlink()}; erase what it leads to, then the link"
        )
    # A cache has its name from the package's path, as that was written then.
    spellings = dict.fromkeys((package, package.absolute(), package.resolve()))
    caches = dict.fromkeys(home for each in spellings for home in homes(each)[1:])
    return [_kept(folder) for folder in (*caches, package) if folder.is_dir()]


def erase(kept: Kept) -> None:
    """Remove the folder ``kept`` with all that is in it.

    It has no name that anybody looks for any more before its files go, so a server never finds
    half of an avatar. Raises StorageFailed where something cannot be removed, which then lies under
    the name in the message.
    """
    gone = temporary_name(kept.path.parent)
    try:
        kept.path.rename(gone)
    except OSError as error:
        raise storage_failed(error, kept.path) from error
    try:
        _remove(gone)
    except OSError as error:
        raise StorageFailed(f"{gone} is what is left; {error.filename}: {error.strerror}") from None


def _kept(folder: Path) -> Kept:
    files = size_bytes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            files += 1
            size_bytes += (Path(place) / name).lstat().st_size
    return Kept(folder, files, size_bytes)


def _remove(folder: Path) -> None:
    """Raises OSError. No link is followed."""
    for place, folders, names in os.walk(folder, topdown=False):
        for name in names:
            (Path(place) / name).unlink()
        for name in folders:
            path = Path(place) / name
            if path.is_symlink():
                path.unlink()
            else:
                path.rmdir()
    folder.rmdir()
