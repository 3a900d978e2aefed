"""How messages about configuration show what was seen."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_SHOWN_CHARACTERS: Final = 60
_BARE: Final = re.compile(r"[\w.+:/-]+", re.ASCII)


def shown(text: str) -> str:
    """``text`` as a message carries it: bare where it is one plain word, quoted otherwise; on one
    line, printable, cut to 60 characters."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return cut if _BARE.fullmatch(cut) else repr(cut)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The entry of ``known`` that ``word`` was probably meant to be, or None."""
    by_folded = {entry.casefold(): entry for entry in known}
    found = get_close_matches(word.casefold()[:200], list(by_folded), n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def listed(words: Iterable[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
