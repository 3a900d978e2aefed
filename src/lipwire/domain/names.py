"""Which names avatars can have, wherever they are given: as folders, in configurations, in requests
and on the command line.

A letter with an accent is one character in most texts and two on the disks of a Mac (Unicode's
forms NFC and NFD, https://unicode.org/reports/tr15/). Both are one name here, in the form NFC.
"""

import unicodedata
from typing import Final

from lipwire.domain.errors import InvalidInput
from lipwire.domain.wording import shown

MAX_NAME_CHARACTERS: Final = 128
NAME_RULE: Final = (
    f"1 to {MAX_NAME_CHARACTERS} letters, digits, blanks and signs that are shown, without / \\ :,"
    " beginning with neither . nor -, and no blank at either end"
)
"""What is allowed, for messages."""
NAME_PATTERN: Final = rf"^[^./\\:\s-][^/\\:]{{0,{MAX_NAME_CHARACTERS - 1}}}$"
"""The rule as far as a regular expression of JSON Schema can say it."""

_SEPARATORS: Final = frozenset("/\\:")  # a Windows path with a drive leads out of a folder too
_CONTROLS: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what is not shown, turns lines round or ends them, or is no text."""
_JOINERS: Final = frozenset("\u200c\u200d")
"""In category Cf, and parts of words (Persian, Hindi) and of emoji."""


def canonical_name(text: str) -> str:
    """Return ``text`` in the form by which names are compared and stored, Unicode's NFC. Whether it
    can be a name is not checked."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spellings(name: str) -> tuple[str, ...]:
    """Return the names that the folder of avatar ``name`` may have on a disk, likeliest first:
    ``name`` itself, which has to be in the form NFC (``canonical_name``), and its form NFD where
    that is another."""
    return (name,) if name.isascii() else (name, unicodedata.normalize("NFD", name))


def is_name(text: object) -> bool:
    """Return whether ``text`` can be an avatar's name: a str of 1 to 128 characters, none of which
    is a slash, a backslash, a colon or a control character, that begins with neither a dot nor a
    hyphen and has no blank at either end. Its canonical form (``canonical_name``) is looked at."""
    if not isinstance(text, str):
        return False
    name = canonical_name(text)
    return (
        0 < len(name) <= MAX_NAME_CHARACTERS
        and name[0] not in ".-"
        and name.strip() == name
        and not any(
            letter in _SEPARATORS
            or (unicodedata.category(letter) in _CONTROLS and letter not in _JOINERS)
            for letter in name
        )
    )


def checked_name(text: str) -> str:
    """Return ``text`` in its canonical form (NFC). Raises InvalidInput where it cannot be an
    avatar's name (``is_name``)."""
    if not is_name(text):
        raise InvalidInput(f"avatar name is {shown(text)}; allowed are {NAME_RULE}")
    return canonical_name(text)
