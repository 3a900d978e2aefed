"""A text as the sentences that are said one after the other."""

import re
import unicodedata
from typing import Final

from lipwire.domain import InvalidInput

MAX_TEXT: Final = 10_000
"""Characters of a text, at most."""
MAX_SENTENCE: Final = 300
"""Characters of a sentence, at most; a longer one is said in parts."""

_KEPT_FORMATS: Final = frozenset("\u200c\u200d")
"""Characters without a form of their own that change how words are read: the joiners."""
_CLOSERS: Final = "[\"'”’»›)\\]}）」』】〉》]*"
_END: Final = re.compile(rf"[.!?…‽]+{_CLOSERS}(?=\s)|[。！？｡．؟۔।॥։።፧။។]+{_CLOSERS}|\n")
"""What may end a sentence: a mark with a blank behind it, a mark of the scripts that need none, the
end of a line."""
_BEFORE_NAMES: Final = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms mx dr prof st messrs mme mlle sr sra srta hr fr frl dipl gen col capt cpt lt sgt"
        " cmdr adm maj rev pres gov sen rep vs cf e.g i.e eg ie viz approx ca al z.b d.h u.a bzw"
        " ggf inkl p.ex n.b",
    )
)
"""Words before a full stop behind which a sentence goes on."""
_BEFORE_NUMBERS: Final = frozenset(
    re.findall(r"\S+", "no nos nr fig figs vol vols pp ch sec eq art")
)
"""Words before a full stop behind which a sentence goes on where a digit follows."""
_PERHAPS_LAST: Final = frozenset(
    re.findall(
        r"\S+",
        "etc inc ltd co corp jr bros dept est a.m p.m usw jan feb mar apr jun jul aug sep sept oct"
        " nov dec mon tue tues wed thu thur thurs fri sat sun",
    )
)
"""Words before a full stop behind which a sentence goes on unless a capital follows."""
_DOTTED: Final = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
"""An abbreviation of letters, as U.S, before its last full stop."""
_CUTS: Final = (
    re.compile(r"[;:—–；：][\"'”’)]*(?=\s)|[；：]|\s[—–-](?=\s)"),
    re.compile(r",[\"'”’)]*(?=\s)|[,،、，]"),
    re.compile(r"(?=\s)"),
)
"""Where a long sentence is cut: the first of these for which there is a place."""


def sentences(text: str) -> list[str]:
    """Return the sentences of ``text``, in their order, each in one line of at most 300 characters
    and with a letter or a digit.

    Control characters and others that are not seen are left out. A sentence ends with a mark such
    as a full stop, in any of many scripts, or at the end of a line, unless the next line begins
    with a small letter. A sentence of more than 300 characters is cut at commas, or between words.
    Raises InvalidInput where the text is longer than 10,000 characters, or has neither letters nor
    digits.
    """
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"the text has {len(text):,} characters; allowed are up to {MAX_TEXT:,}")
    found = [part for sentence in _split(_cleaned(text)) for part in _cut(sentence)]
    if not found:
        raise InvalidInput("nothing to say: the text has neither letters nor digits")
    return found


def _cleaned(text: str) -> str:
    """``text`` in composed characters, with one kind of blank, and line ends where they matter."""
    kept = []
    for character in unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")):
        kind = unicodedata.category(character)
        if character in "\n\u2028\u2029\x0b\x0c\x85":
            kept.append("\n")
        elif kind == "Zs" or character == "\t":
            kept.append(" ")
        elif kind[0] != "C" or character in _KEPT_FORMATS:
            kept.append(character)
    lines = [" ".join(line.split()) for line in "".join(kept).split("\n")]
    joined = ""
    for line in lines:
        goes_on = joined and not joined.endswith("\n") and line[:1].islower()
        joined += (" " if goes_on else "\n") + line
    return joined.strip()


def _split(text: str) -> list[str]:
    parts = []
    begin = 0
    for mark in _END.finditer(text):
        if _ends(text, begin, mark):
            parts.append(text[begin : mark.end()].strip())
            begin = mark.end()
    parts.append(text[begin:].strip())
    return parts


def _ends(text: str, begin: int, mark: re.Match[str]) -> bool:
    """Whether a sentence that begins at ``begin`` ends with ``mark``."""
    following = text[mark.end() :].lstrip()
    if not following or mark[0] == "\n":
        return True
    opened = following.lstrip("\"'“‘«‹([¿¡")[:1]
    if opened.islower():
        return False
    if mark[0] != ".":
        return True
    word = text[begin : mark.start()].split(" ")[-1].lstrip("\"'“‘«‹([").lower()
    if word.isdigit() and not text[begin : mark.start() - len(word)].strip():
        return False  # the number of a list's item
    if word in _PERHAPS_LAST:
        return opened.isupper()
    if word in _BEFORE_NUMBERS:
        return not opened.isdigit()
    if word in _BEFORE_NAMES or _DOTTED.fullmatch(word):
        return False
    return not (len(word) == 1 and word.isalpha() and word != "i")  # an initial


def _says_something(text: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _cut(sentence: str) -> list[str]:
    """Parts of ``sentence`` of at most ``MAX_SENTENCE`` characters."""
    parts = []
    while len(sentence) > MAX_SENTENCE:
        end = _place(sentence)
        part, sentence = sentence[:end].strip(), sentence[end:].strip()
        if _says_something(part):
            parts.append(part)
    if _says_something(sentence):
        parts.append(sentence)
    return parts


def _place(sentence: str) -> int:
    """Where ``sentence`` is cut: as near to the longest that is allowed as its marks let it, but
    behind a third of it."""
    for cut in _CUTS:
        ends = [mark.end() for mark in cut.finditer(sentence[: MAX_SENTENCE + 1])]
        if ends and ends[-1] >= MAX_SENTENCE // 3:
            return min(ends[-1], MAX_SENTENCE)
    end = MAX_SENTENCE
    while end > MAX_SENTENCE // 2 and unicodedata.category(sentence[end])[0] == "M":
        end -= 1  # marks stay with their letter
    return end
