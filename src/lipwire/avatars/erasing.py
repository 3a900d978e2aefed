"""Forgetting a person: everything that is kept here of an avatar."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from lipwire.avatars.compiled.storage import homes
from lipwire.domain import AvatarFiles, InvalidInput, LipwireError, StorageFailed
from lipwire.domain.newfiles import storage_failed, temporary_name
from lipwire.engine import folders_made_of, special_folder
from lipwire.engine.store.modelfiles import MANIFEST_NAME, read_manifest


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder in which something of an avatar is kept: its ``path``, ``what`` it is (the avatar's
    package, compiled forms of it or of its network in a cache, or renders of it), how many
    ``files`` (or renders) are in it, and how many bytes they have together."""

    path: Path
    what: Literal["package", "compiled forms", "renders"]
    files: int
    size_bytes: int
    """Of all its files together."""


def kept_of(package: Path) -> list[Kept]:
    """Return the folders in which something is kept of the avatar in the folder ``package``:
    compiled forms in caches, then the package with all that is in it. Folders that do not exist are
    left out. Raises InvalidInput where ``package`` is a link, because the folder it leads to may be
    shared, and where the package came with Lipwire."""
    if package.is_symlink():
        raise InvalidInput(
            f"{package.name} is a link to another folder; erase what it leads to, then the link"
        )
    with as_file(files("lipwire")) as own:
        if package.resolve().is_relative_to(own.resolve()):
            raise InvalidInput(
                f"{package.name} came with Lipwire and shows no real person; it stays"
            )
    # A cache has its name from the package's path, as that was written then.
    spellings = dict.fromkeys((package, package.absolute(), package.resolve()))
    caches = dict.fromkeys(home for each in spellings for home in homes(each)[1:])
    places = [*spellings, *caches]
    caches |= dict.fromkeys(special_folder() / sha256 for sha256 in _networks(places))
    caches |= dict.fromkeys(each for spelling in spellings for each in folders_made_of(spelling))
    found = [_kept(folder, "compiled forms") for folder in caches if folder.is_dir()]
    return [*found, _kept(package, "package")] if package.is_dir() else found


def package_of(name: str, where: AvatarFiles) -> Path:
    """Return the folder of the package of the avatar ``name``, whose files are ``where``. Raises
    InvalidInput where files are named one by one, so that they may lie in several folders."""
    if where.folder is None or where.named:
        raise InvalidInput(
            f"the files of {name} lie in several places, each named in the configuration; remove"
            " them there"
        )
    return where.folder


def erase(kept: Kept) -> None:
    """Remove the folder ``kept.path`` with all that is in it; links are removed and not followed.

    The folder is renamed before its files go, so that a server never finds half of an avatar.
    Raises StorageFailed where something cannot be removed; the message names the folder in which
    the rest lies.
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


def _networks(folders: Iterable[Path]) -> Iterator[str]:
    """The SHA-256 of each network that was compiled in one of ``folders``."""
    for folder in folders:
        for manifest in folder.glob(f"**/{MANIFEST_NAME}"):
            if not manifest.is_file():  # a pipe would be waited for
                continue
            with suppress(LipwireError):
                yield read_manifest(manifest.parent).source_sha256


def _kept(folder: Path, what: Literal["package", "compiled forms"]) -> Kept:
    count = size_bytes = 0
    for place, _, names in os.walk(folder):
        for name in names:
            count += 1
            size_bytes += (Path(place) / name).lstat().st_size
    return Kept(folder, what, count, size_bytes)


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
