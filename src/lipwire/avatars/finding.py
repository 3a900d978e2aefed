"""Avatars by name.

A name is looked for in the folders of ``$LIPWIRE_AVATARS`` (separated as in ``$PATH``), in
``./avatars``, in the user's data folder, and among the packages shipped with Lipwire; the first
that has it wins.
"""

import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

from platformdirs import user_data_path

from lipwire.avatars.package import FRAMES_NAME, MODEL_NAME
from lipwire.avatars.problems import nearest, shown
from lipwire.avatars.rectangles import RECTANGLES_NAME
from lipwire.domain import InvalidInput, NotFound

PATH_VARIABLE: Final = "LIPWIRE_AVATARS"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MARKS: Final = (RECTANGLES_NAME, MODEL_NAME, FRAMES_NAME)
"""A folder with any of these is meant to be an avatar, whole or not."""


def find_avatar(name_or_path: str) -> Path:
    """The folder of the avatar ``name_or_path``: a path (it holds a slash or is "." or ".."), or a
    name.

    A name that no search folder has may still be a folder in the current one. Raises InvalidInput
    for a name of other characters, and NotFound, with the nearest name known and the folders
    searched.
    """
    if _is_path(name_or_path):
        path = Path(name_or_path).expanduser()
        if not _exists(path):
            raise NotFound(f"no avatar at {name_or_path}; there is no such folder")
        return path
    if not _NAME.fullmatch(name_or_path):
        raise InvalidInput(
            f"avatar name is {shown(name_or_path)}; allowed are 1 to 64 of A-Z a-z 0-9 . _ -,"
            " beginning with a letter or digit"
        )
    for folder in search_folders():
        if _is_avatar(folder / name_or_path):
            return folder / name_or_path
    here = Path(name_or_path)
    if here.is_dir():
        return here
    known = [path.name for path in list_avatars()]
    guess = nearest(name_or_path, known)
    hint = f"; the nearest known is {guess}" if guess else ""
    looked = ", ".join(str(folder) for folder in search_folders())
    raise NotFound(f"no avatar named {name_or_path}{hint}; looked in {looked}")


def list_avatars() -> list[Path]:
    """The folders of all avatars known by name, by name; of two with one name, the one found
    first."""
    found: dict[str, Path] = {}
    for folder in search_folders():
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            if _NAME.fullmatch(entry.name) and entry.name not in found and _is_avatar(entry):
                found[entry.name] = entry
    return [found[name] for name in sorted(found)]


def search_folders() -> list[Path]:
    """Where names are looked for, in order. Folders need not exist."""
    return list(dict.fromkeys(_search_folders()))


def _search_folders() -> Iterator[Path]:
    for entry in os.environ.get(PATH_VARIABLE, "").split(os.pathsep):
        if entry:
            yield Path(entry).expanduser()
    yield Path("avatars")
    yield user_data_path("lipwire") / "avatars"
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


def _is_avatar(folder: Path) -> bool:
    return any(_exists(folder / mark) for mark in _MARKS)
