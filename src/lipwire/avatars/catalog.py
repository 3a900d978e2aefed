"""Names of avatars to package folders, for a server that knows thousands of them.

Two sources: entries given one by one, and a folder whose subfolders are packages. The entries win.
The folder is read when it has changed, a name that is new in it is found without reading it, and
nothing is remembered that is not there any more.
"""

import os
import re
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

from lipwire.avatars.package import FRAMES_NAME, MODEL_NAME
from lipwire.avatars.problems import shown
from lipwire.avatars.rectangles import RECTANGLES_NAME
from lipwire.domain import InvalidInput, NotFound

MAX_NAME_CHARACTERS: Final = 128
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_CHARACTERS - 1}}}")
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
    names: frozenset[str]
    unfinished: frozenset[str]
    """Folders that are no avatars yet: one that is being copied becomes one in silence."""


class Catalog:
    """Finds the package folder of a name. Thread-safe.

    >>> catalog = Catalog(Path("/srv/avatars"), {"anna": Path("/home/anna/package")})
    >>> catalog.path("anna")
    PosixPath('/home/anna/package')
    """

    def __init__(
        self,
        models_root: Path | None,
        entries: Mapping[str, Path],
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``models_root`` need not exist yet. ``clock_ns`` is the file system's. Raises
        InvalidInput for an entry whose name is none."""
        for name in entries:
            check_name(name)
        self._root = None if models_root is None else Path(models_root)
        self._entries = dict(entries)
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._scan = _Scan(-1, -1, frozenset(), frozenset())
        self._names: tuple[str, ...] | None = None
        self._nearest: _Nearest | None = None
        self._hints: OrderedDict[str, str | None] = OrderedDict()

    def path(self, name: str) -> Path:
        """The package folder of ``name``; a few stats.

        Raises InvalidInput where ``name`` cannot be one, and NotFound with the nearest one known.
        Whether the package is in order is not looked at.
        """
        check_name(name)
        entry = self._entries.get(name)
        if entry is not None:
            return entry
        if self._root is not None and _is_avatar(self._root / name):
            return self._root / name
        guess = self._guess(name)
        hint = f"; the nearest known is {guess}" if guess else ""
        raise NotFound(f"no avatar named {name}{hint}")

    def names(self) -> tuple[str, ...]:
        """All names, in order. Reads the folder where it has changed since the last time."""
        self._refresh()
        with self._lock:
            if self._names is None:
                self._names = tuple(sorted(self._scan.names.union(self._entries)))
            return self._names

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        """Whether ``path`` would find it."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return False
        return name in self._entries or (self._root is not None and _is_avatar(self._root / name))

    def _refresh(self) -> None:
        if self._root is None:
            return
        before = self._scan
        read_ns = self._clock_ns()
        try:
            changed_ns = self._root.stat().st_mtime_ns
        except OSError:
            self._replace(before, _Scan(-1, read_ns, frozenset(), frozenset()))
            return
        settled = before.changed_ns + _CLOCK_STEP_NS <= before.read_ns
        if changed_ns == before.changed_ns and settled:
            finished = {name for name in before.unfinished if _is_avatar(self._root / name)}
            if finished:
                names, unfinished = before.names | finished, before.unfinished - finished
                self._replace(before, _Scan(changed_ns, before.read_ns, names, unfinished))
            return
        names_found, unfinished_found = self._read(before)
        self._replace(before, _Scan(changed_ns, read_ns, names_found, unfinished_found))

    def _read(self, before: _Scan) -> tuple[frozenset[str], frozenset[str]]:
        names: set[str] = set()
        unfinished: set[str] = set()
        root = self._root
        if root is None:
            return frozenset(), frozenset()
        try:
            with os.scandir(root) as entries:
                for entry in entries:
                    name = entry.name
                    if not _NAME.fullmatch(name):
                        continue
                    # Names known before are not looked into again; ``path`` does that for one.
                    if name in before.names or _is_avatar(root / name):
                        names.add(name)
                    elif _is_folder(entry):
                        unfinished.add(name)
        except OSError:
            pass  # removed or forbidden meanwhile: what was read until then counts
        return frozenset(names), frozenset(unfinished)

    def _replace(self, before: _Scan, scan: _Scan) -> None:
        with self._lock:
            if self._scan is not before:
                return  # another thread was quicker
            self._scan = scan
            if scan.names != before.names:
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


def check_name(name: str) -> None:
    """Raise InvalidInput where ``name`` can be no avatar's: it might lead out of a folder."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(
            f"avatar name is {shown(name)}; allowed are 1 to {MAX_NAME_CHARACTERS} of"
            " A-Z a-z 0-9 . _ -, beginning with a letter or digit"
        )


def _is_avatar(folder: Path) -> bool:
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
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8)
    return np.bincount(codes & 63, minlength=64).astype(np.int16)
