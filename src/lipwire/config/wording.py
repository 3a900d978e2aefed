"""How messages about configuration show what was seen."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_SHOWN_CHARACTERS: Final = 60
_BARE: Final = re.compile(r"[\w.+:/-]+", re.ASCII)


def shown(text: str) -> str:
    """Return ``text`` for a message: as it is where it is one plain word, quoted otherwise; on one
    line, printable, cut to 60 characters."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return cut if _BARE.fullmatch(cut) else repr(cut)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the entry of ``known`` that ``word`` was probably meant to be; None where none is
    similar. ``cutoff`` is how similar it has to be, 0 to 1 (``difflib``)."""
    by_folded = {entry.casefold(): entry for entry in known}
    found = get_close_matches(word.casefold()[:200], list(by_folded), n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def listed(words: Iterable[str]) -> str:
    """Return ``words`` as a list in a sentence: "a", "a or b", "a, b or c"."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
