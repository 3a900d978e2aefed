"""Names of avatars to where their files lie, for a server that knows thousands of them.

Two sources: entries given one by one, and a folder whose subfolders are packages. The entries win.
The folder is read when it has changed, a name that is new in it is found without reading it, and
nothing is remembered that is not there any more. A folder whose name cannot be an avatar's
(``lipwire.domain.names``) is not served, which the log says.
"""

import logging
import os
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from lipwire.avatars.compiled.versions import package_version
from lipwire.avatars.package import Half
from lipwire.avatars.packages import HeldFiles
from lipwire.domain import AvatarFiles, NotFound
from lipwire.domain.avatarfiles import FRAMES_NAME, MODEL_NAME, RECTANGLES_NAME
from lipwire.domain.names import NAME_RULE, canonical_name, checked_name, is_name, spellings
from lipwire.domain.wording import shown

_LOG: Final = logging.getLogger("lipwire.avatars")
_MARKS: Final = (RECTANGLES_NAME, MODEL_NAME, FRAMES_NAME)
"""A folder with any of these is meant to be an avatar, whole or not."""
_CLOCK_STEP_NS: Final = 2_000_000_000
"""A folder may change again without its time moving for this long (FAT keeps two seconds)."""

_LIKE: Final = 48
"""Names compared letter by letter with one that is not known."""
_NEAR_ENOUGH: Final = 0.6
_MAX_HINTS: Final = 256


@dataclass(frozen=True, slots=True)
class _Scan:
    """What the folder held."""

    changed_ns: int
    read_ns: int
    folders: Mapping[str, str]
    """The folders that are avatars, by name: names are canonical, folders as they are written."""
    unfinished: frozenset[str]
    """Folders that are no avatars yet: one that is being copied becomes one in silence."""


class Catalog:
    """Finds an avatar's files by the avatar's name, in a folder of avatars and among entries that
    are given. Thread-safe.

    >>> anna = AvatarFiles(model=Path("/models/anna.onnx"))
    >>> catalog = Catalog(Path("/srv/avatars"), {"anna": anna})
    >>> catalog.files("anna").model
    PosixPath('/models/anna.onnx')
    """

    def __init__(
        self,
        models_root: Path | None,
        entries: Mapping[str, AvatarFiles | Path],
        *,
        hinting: bool = True,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``models_root`` is a folder of avatars, each a folder of its name; it need not exist yet,
        and None means that there is none. ``entries`` has the files, or the package's folder, of
        avatars by their names; where ``models_root`` has the same name, ``entries`` counts.
        ``hinting`` lets errors name the nearest known name. ``clock_ns`` returns the wall clock's
        time in nanoseconds, with which files' times are compared. Raises InvalidInput for an entry
        whose name cannot be an avatar's."""
        self._root = None if models_root is None else Path(models_root)
        self._entries = {
            checked_name(name): AvatarFiles.at(where) for name, where in entries.items()
        }
        self._hinting = hinting
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._scan = _Scan(-1, -1, {}, frozenset())
        self._refused: set[str] = set()
        self._names: tuple[str, ...] | None = None
        self._nearest: _Nearest | None = None
        self._hints: OrderedDict[str, str | None] = OrderedDict()

    def files(self, name: str) -> AvatarFiles:
        """Return where the files of the avatar ``name`` lie. This takes a few ``stat`` calls.

        Raises InvalidInput where ``name`` cannot be an avatar's name, and NotFound where there is
        none of that name; unless ``hinting`` was False, the message has the most similar known
        name, if any. Whether the files are valid is not checked.
        """
        name = checked_name(name)
        found = self._find(name)
        if found is not None:
            return found
        guess = self._guess(name) if self._hinting else None
        hint = f"; the nearest known is {guess}" if guess else ""
        raise NotFound(f"no avatar named {name}{hint}")

    def hold(self, name: str) -> HeldFiles:
        """Return an object whose attribute ``files`` is what ``files(name)`` returns. It is a
        context manager for callers that do not know which kind of ``Packages`` they use: here
        closing it does nothing, and the files are not protected from being removed. Raises
        InvalidInput where ``name`` cannot be an avatar's name, and NotFound where there is none of
        that name."""
        return HeldFiles(self.files(name))

    def version(self, name: str, need: frozenset[Half] = frozenset()) -> object:
        """Return a token to compare with ``==``: it differs when a file of the avatar ``name`` was
        changed (``package_version``). ``need`` are the halves that have to be there, of ``model``
        (the network) and ``frames``. Raises InvalidInput where ``name`` cannot be an avatar's name;
        NotFound where there is none of that name, its folder is gone, or a file of a half in
        ``need`` is missing whose path ``AvatarFiles`` gives on its own."""
        return package_version(self.files(name), need)

    def refresh(self, name: str) -> None:
        """Do nothing: ``version`` looks at the files of ``name`` each time. See
        ``Packages.refresh``."""

    def opened_by(self, evict: Callable[[int], list[str]], unload: Callable[[str], object]) -> None:
        """Do nothing; ``evict`` and ``unload`` are never called, because a catalog neither makes
        room for files nor removes any. See ``Packages.opened_by``."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all avatars in alphabetical order. The folder of avatars is read
        again where it has changed since the last time."""
        self._refresh()
        with self._lock:
            if self._names is None:
                self._names = tuple(sorted(self._scan.folders.keys() | self._entries.keys()))
            return self._names

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        """Whether there is an avatar of the name ``name``; False for what cannot be a name."""
        return (
            isinstance(name, str) and is_name(name) and self._find(canonical_name(name)) is not None
        )

    def _find(self, name: str) -> AvatarFiles | None:
        entry = self._entries.get(name)
        if entry is not None:
            return entry.through(_as_written)
        if self._root is None:
            return None
        for spelling in spellings(name):
            if is_avatar_folder(self._root / spelling):
                return AvatarFiles(folder=self._root / spelling)
        if name.isascii():
            return None
        # Neither form throughout: only reading the folder tells how it is written.
        self._refresh()
        folder = self._scan.folders.get(name)
        found = None if folder is None else self._root / folder
        return AvatarFiles(folder=found) if found and is_avatar_folder(found) else None

    def _refresh(self) -> None:
        if self._root is None:
            return
        before = self._scan
        read_ns = self._clock_ns()
        try:
            changed_ns = self._root.stat().st_mtime_ns
        except OSError:
            self._replace(before, _Scan(-1, read_ns, {}, frozenset()))
            return
        settled = before.changed_ns + _CLOCK_STEP_NS <= before.read_ns
        if changed_ns == before.changed_ns and settled:
            finished = {each for each in before.unfinished if is_avatar_folder(self._root / each)}
            if finished:
                folders = dict(before.folders) | self._named(finished)
                unfinished = before.unfinished - finished
                self._replace(before, _Scan(changed_ns, before.read_ns, folders, unfinished))
            return
        folders, unfinished = self._read(before, self._root)
        self._replace(before, _Scan(changed_ns, read_ns, folders, unfinished))

    def _read(self, before: _Scan, root: Path) -> tuple[dict[str, str], frozenset[str]]:
        known = frozenset(before.folders.values())
        avatars: set[str] = set()
        unfinished: set[str] = set()
        try:
            with os.scandir(root) as entries:
                for entry in entries:
                    # Those known before are not looked into again; ``files`` does that for one.
                    if entry.name in known or is_avatar_folder(root / entry.name):
                        avatars.add(entry.name)
                    elif _is_folder(entry):
                        unfinished.add(entry.name)
        except OSError:
            pass  # removed or forbidden meanwhile: what was read until then counts
        return self._named(avatars), frozenset(unfinished)

    def _named(self, folders: set[str]) -> dict[str, str]:
        """Folders by name; what cannot be served is logged, once."""
        found: dict[str, str] = {}
        for folder in sorted(folders):
            name = canonical_name(folder)
            if not is_name(folder):
                self._refuse(folder, f"allowed are {NAME_RULE}")
            elif name in found:
                self._refuse(folder, "another folder has the same name, written in another way")
            else:
                found[name] = folder
        return found

    def _refuse(self, folder: str, reason: str) -> None:
        with self._lock:
            if folder in self._refused:
                return
            self._refused.add(folder)
        _LOG.warning("the folder %s in %s is not served; %s", shown(folder), self._root, reason)

    def _replace(self, before: _Scan, scan: _Scan) -> None:
        with self._lock:
            if self._scan is not before:
                return  # another thread was quicker
            self._scan = scan
            if scan.folders.keys() != before.folders.keys():
                self._names = None
                self._nearest = None
                self._hints.clear()

    def _guess(self, name: str) -> str | None:
        names = self.names()
        with self._lock:
            if name in self._hints:
                return self._hints[name]
            nearest = self._nearest
        if nearest is None:
            nearest = _Nearest(names)
        guess = nearest.to(name)
        with self._lock:
            if self._names is names:
                self._nearest = nearest
                self._hints[name] = guess
                while len(self._hints) > _MAX_HINTS:
                    self._hints.popitem(last=False)
        return guess


def _as_written(path: Path) -> Path:
    """``path`` with its last name as it is on the disk, if it is there."""
    if path.name.isascii():
        return path
    others = (path.with_name(each) for each in spellings(canonical_name(path.name)))
    return next((each for each in (path, *others) if os.path.lexists(each)), path)


def is_avatar_folder(folder: Path) -> bool:
    """Return whether ``folder`` holds at least one of ``crop_rects.json``,
    ``checkpoint/model_best.onnx`` (the network) and ``frames``, so that it is meant to hold an
    avatar, complete or not."""
    text = os.fspath(folder)
    return any(os.path.exists(f"{text}/{mark}") for mark in _MARKS)  # noqa: PTH110 - the price


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


class _Nearest:
    """The name most like another one, among thousands, in about a millisecond.

    Comparing texts takes some 20 microseconds a pair. So the names that share most letters with the
    one asked for are picked first, all at once: counts of each letter, whatever their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._folded = [name.casefold() for name in names]
        self._counts = np.zeros((len(names), 64), np.int16)  # (names, letters)
        for row, text in zip(self._counts, self._folded, strict=True):
            row[:] = _letters(text)

    def to(self, name: str) -> str | None:
        if not self._names:
            return None
        folded = name.casefold()
        apart = np.abs(self._counts - _letters(folded)).sum(axis=1)
        count = min(_LIKE, len(self._names))
        like = np.argpartition(apart, count - 1)[:count].tolist()
        # Names of equal letters may be many (all numbers of a series): those beside it count too.
        at = bisect_left(self._names, name)
        like += range(max(at - 4, 0), min(at + 4, len(self._names)))
        matcher = SequenceMatcher(autojunk=False)
        matcher.set_seq2(folded)
        best, score = None, _NEAR_ENOUGH
        for index in sorted(set(like)):
            matcher.set_seq1(self._folded[index])
            if matcher.real_quick_ratio() > score and matcher.ratio() > score:
                best, score = self._names[index], matcher.ratio()
        return best


def _letters(text: str) -> npt.NDArray[np.int16]:
    """How often each letter is in ``text``: (64,) int16."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    return np.bincount(codes & 63, minlength=64).astype(np.int16)
