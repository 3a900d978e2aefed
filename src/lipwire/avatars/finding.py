"""Avatars by name.

A name is looked for in the folders of ``$LIPWIRE_AVATARS`` (separated as in ``$PATH``), in
``./avatars``, in the user's data folder, and among the packages shipped with Lipwire; the first
that has it wins.
"""

import functools
import logging
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

from lipwire.avatars.catalog import is_avatar_folder
from lipwire.avatars.checks.problems import nearest
from lipwire.config.folders import data_folder
from lipwire.domain import NotFound
from lipwire.domain.names import NAME_RULE, canonical_name, checked_name, is_name
from lipwire.domain.wording import shown

PATH_VARIABLE: Final = "LIPWIRE_AVATARS"
_LOG: Final = logging.getLogger("lipwire.avatars")


def find_avatar(name_or_path: str) -> Path:
    """Return the folder of an avatar; what is in it is not checked.

    ``name_or_path`` is a path where it holds a slash or is ".", ".." or "~", else a name, which is
    looked for in ``search_folders()``. Where none of those has it, a folder of that name in the
    current folder is returned, if there is one. The last part of the returned path is always a
    folder's name, even for ".". Raises InvalidInput for what cannot be an avatar's name, and
    NotFound where nothing is found; for a name the message has the most similar known name, if any,
    and the folders searched.
    """
    if _is_path(name_or_path):
        path = _expanded(name_or_path)
        if not _exists(path):
            raise NotFound(f"no avatar at {name_or_path}; there is no such folder")
        # "." and what ends with ".." have no name by which messages could call the avatar.
        return path if path.name not in ("", "..") else path.resolve()
    name = checked_name(name_or_path)
    for folder in search_folders():
        if is_avatar_folder(folder / name):
            return folder / name
    known = {canonical_name(path.name): path for path in list_avatars()}
    if name in known:  # as a folder it is written in another way
        return known[name]
    here = Path(name_or_path)
    if _is_folder(here):
        return here
    guess = nearest(name, list(known))
    hint = f"; the nearest known is {guess}" if guess else ""
    looked = ", ".join(str(folder) for folder in search_folders())
    raise NotFound(f"no avatar named {name}{hint}; looked in {looked}")


def list_avatars() -> list[Path]:
    """Return the folders of all avatars that lie in one of ``search_folders()``, in the order of
    their names.

    Of two with one name, the one found first is listed. A folder whose name cannot be an avatar's
    is left out, and logged.
    """
    found: dict[str, Path] = {}
    for folder in search_folders():
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            if not is_avatar_folder(entry):
                continue
            if is_name(entry.name):
                found.setdefault(canonical_name(entry.name), entry)
            else:
                _say_unnamed(folder, entry.name)
    return [found[name] for name in sorted(found)]


@functools.cache
def _say_unnamed(folder: Path, name: str) -> None:
    _LOG.warning(
        "the folder %s in %s cannot be named; allowed are %s", shown(name), folder, NAME_RULE
    )


def search_folders() -> list[Path]:
    """Return the folders in which avatars are looked for by name, in order: those that the
    environment variable LIPWIRE_AVATARS lists, ``avatars`` in the current folder, the one in the
    user's data folder, and the one that is installed with Lipwire. They need not exist."""
    return list(dict.fromkeys(_search_folders()))


def folder_for_new() -> Path:
    """Return the folder that a new avatar is put into, where it is then found by its name: the
    first that LIPWIRE_AVATARS lists, else ``avatars`` in the current folder where that is there,
    else the one in the user's data folder, or ``avatars`` again where the user has no data folder.
    The returned folder need not exist."""
    listed = [entry for entry in os.environ.get(PATH_VARIABLE, "").split(os.pathsep) if entry]
    if listed:
        return _expanded(listed[0])
    here = Path("avatars")
    data = data_folder()
    return here if data is None or here.is_dir() else data / "avatars"


def _search_folders() -> Iterator[Path]:
    for entry in os.environ.get(PATH_VARIABLE, "").split(os.pathsep):
        if entry:
            yield _expanded(entry)
    yield Path("avatars")
    if (data := data_folder()) is not None:
        yield data / "avatars"
    shipped = files("lipwire") / "assets" / "avatars"
    if isinstance(shipped, Path):  # not so inside a zip file, which cannot be mapped anyway
        yield shipped


def _is_path(text: str) -> bool:
    return text in (".", "..", "~") or "/" in text or os.sep in text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long a name; a NUL in it
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name: letters beyond ASCII take several bytes
        return False


def _expanded(text: str) -> Path:
    """``text`` as a path, "~" being the user's home where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)
