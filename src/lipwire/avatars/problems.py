"""What can be wrong with a package, one line each, and how the lines are collected.

Readers report into a ``Findings`` and go on where they can, so that a person sees everything at
once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from lipwire.domain import AvatarInvalid

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: an error stops the package from being used, a warning does not."""

    severity: Literal["error", "warning"]
    message: str
    """One line with the value seen and the value allowed."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


@dataclass(slots=True)
class Findings:
    """Problems in the order in which they were met. Not thread-safe."""

    problems: list[Problem] = field(default_factory=list)

    def error(self, message: str) -> None:
        self.problems.append(Problem("error", _on_one_line(message)))

    def warning(self, message: str) -> None:
        self.problems.append(Problem("warning", _on_one_line(message)))

    def errors(self) -> Iterator[Problem]:
        return (problem for problem in self.problems if problem.severity == "error")

    def raise_first(self) -> None:
        """Raise AvatarInvalid with the first error, if there is one."""
        for problem in self.errors():
            raise AvatarInvalid(problem.message)


def _on_one_line(message: str) -> str:
    """File names may hold line ends and what a terminal obeys; they are escaped."""
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in message
    )


def shown(value: object) -> str:
    """``value`` as it is put into a message: its repr on one line, cut to 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4300 digits has no decimal form
        text = "a number too long to print"
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def nearest(word: str, known: list[str]) -> str | None:
    """The entry of ``known`` that ``word`` was probably meant to be, or None."""
    by_folded = {entry.casefold(): entry for entry in known}
    found = get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None
