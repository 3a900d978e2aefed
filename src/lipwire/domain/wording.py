"""Text that somebody else wrote (names in files, messages of libraries and servers), in messages.

It may be long, end the line, or hold what a terminal obeys.
"""

from typing import Final

SHOWN_CHARACTERS: Final = 60
"""Of a value in a message, unless more are asked for."""
_JOINERS: Final = "\u200c\u200d"
"""Letters of Persian and of Indic scripts, and the parts of emoji, are joined or kept apart so."""


def escaped(text: str) -> str:
    """Return ``text`` with what cannot be printed escaped as in Python (``\\n``, ``\\x1b``,
    ``\\u202e``): control characters, line ends, marks of direction, lone surrogates."""
    return "".join(
        letter if letter.isprintable() or letter in _JOINERS else ascii(letter)[1:-1]
        for letter in text
    )


def one_line(text: str, limit: int | None = None) -> str:
    """Return ``text`` on one line, escaped, with each run of white space as one blank; cut to
    ``limit`` characters unless that is None."""
    return escaped(" ".join(text.split()))[:limit]


def shown(value: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return ``value`` in the form in which messages show it: its repr, escaped, on one line; a
    text is in quotation marks. Of more than ``limit`` characters, quotation marks apart, the first
    are shown, and "…" in place of the rest."""
    if isinstance(value, str) and len(value) > limit:
        value = value[: limit - 1] + "…"
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4300 digits has no decimal form
        text = "a number too long to print"
    text = one_line(text)
    return text if len(text) <= limit + 2 else text[: limit + 1] + "…"
