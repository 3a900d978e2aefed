"""How messages about configuration show what was seen."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from lipwire.domain.wording import SHOWN_CHARACTERS
from lipwire.domain.wording import shown as quoted

_BARE: Final = re.compile(r"[\w.+:/-]+", re.ASCII)


def shown(text: str) -> str:
    """Return ``text`` in the form in which messages show it: unchanged where it is one plain word,
    else in quotes, on one line, with what cannot be printed escaped, cut to 60 characters."""
    bare = len(text) <= SHOWN_CHARACTERS and _BARE.fullmatch(text)
    return text if bare else quoted(text)


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the one of ``known`` that is most similar to ``word``, whatever the case of letters,
    to suggest it for a misspelt one; None where none is similar. ``cutoff`` is how similar it has
    to be, from 0 (anything will do) to 1 (equal). Only the first 200 characters of ``word``
    count."""
    by_folded = {entry.casefold(): entry for entry in known}
    found = get_close_matches(word.casefold()[:200], list(by_folded), n=1, cutoff=cutoff)
    return by_folded[found[0]] if found else None


def listed(words: Iterable[str]) -> str:
    """Return ``words``, at least one, as a list of alternatives for a sentence: "a", "a or b", "a,
    b or c"."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
