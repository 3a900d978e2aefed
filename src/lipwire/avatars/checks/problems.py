"""What can be wrong with a package, one line each, and how the lines are collected.

Readers report into a ``Findings`` and go on where they can, so that a person sees everything at
once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal

from lipwire.domain import AvatarInvalid
from lipwire.domain.wording import escaped

_SHOWN_RUNS = 8
_MAX_KINDS = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a package: an error stops it from being used, a warning does
    not. ``message`` is one line with the value seen and the value allowed."""

    severity: Literal["error", "warning"]
    message: str
    """One line with the value seen and the value allowed."""

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}"


@dataclass(slots=True)
class Findings:
    """Collects what is wrong with a package: ``problems``, in the order in which they were met. Not
    thread-safe."""

    problems: list[Problem] = field(default_factory=list)

    def error(self, message: str) -> None:
        """Add an error; ``message`` is one line."""
        self.problems.append(Problem("error", escaped(message)))

    def warning(self, message: str) -> None:
        """Add a warning; ``message`` is one line."""
        self.problems.append(Problem("warning", escaped(message)))

    def errors(self) -> Iterator[Problem]:
        """Yield the errors, without the warnings."""
        return (problem for problem in self.problems if problem.severity == "error")

    def raise_first(self) -> None:
        """Raise AvatarInvalid with the message of the first error; do nothing where there is none.
        Warnings do not count."""
        for problem in self.errors():
            raise AvatarInvalid(problem.message)


class FrameFindings:
    """Collects what is wrong with single frames of a package, and reports it as one error for each
    kind of problem, with all frames that have it."""

    __slots__ = ("_kinds", "_numbers")

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[str, list[int]]] = {}
        self._numbers: set[int] = set()

    def __len__(self) -> int:
        """Return the number of frames that have a problem."""
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    def add(self, number: int, label: str, message: str) -> None:
        """Add a problem of frame ``number``.

        ``label`` is the frame's name in messages, such as its file's name; ``message`` continues
        it, such as "is not a file". Messages that differ only in digits are one kind of problem, of
        which the first is reported.
        """
        kind = "".join(letter for letter in message if not letter.isdigit())
        self._kinds.setdefault(kind, (f"{label} {message}", []))[1].append(number)
        self._numbers.add(number)

    def report(self, findings: Findings) -> None:
        """Put the problems that were added into ``findings``: one error for each kind of problem,
        with the numbers of all frames that have it and the first one's message. Of more than 20
        kinds the first 20 are reported, and one more error has the number of the other problems."""
        for message, numbers in list(self._kinds.values())[:_MAX_KINDS]:
            every = f"{frames_shown(sorted(numbers))}: " if len(numbers) > 1 else ""
            findings.error(f"{every}{message}")
        more = sum(len(numbers) for _, numbers in list(self._kinds.values())[_MAX_KINDS:])
        if more:
            findings.error(f"{more} more frames are wrong in other ways")


def frames_shown(numbers: Iterable[int]) -> str:
    """Return the frames ``numbers``, which are in ascending order, as messages name them: "frame 3"
    or "frames 3, 7-9".

    Eight runs of numbers are listed; the frames in others are counted ("and 5 more").
    """
    runs: list[list[int]] = []
    count = 0
    for number in numbers:
        count += 1
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    listed = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:_SHOWN_RUNS]]
    more = count - sum(b - a + 1 for a, b in runs[:_SHOWN_RUNS])
    return f"frame{'' if count == 1 else 's'} {', '.join(listed)}" + (
        f" and {more} more" if more else ""
    )


def rectangle_of(frames: Sequence[int]) -> str:
    """Return how a message about the crop rectangles of the frames ``frames``, one or more numbers
    in ascending order, begins: "rectangle of frame 3" for one, "frames 3, 7-9: rectangle of frame
    3" for several. The caller goes on about the rectangle of the first of them."""
    every = f"{frames_shown(frames)}: " if len(frames) > 1 else ""
    return f"{every}rectangle of frame {frames[0]}"


def nearest(word: str, known: list[str]) -> str | None:
    """Return the entry of ``known`` that ``word`` was probably meant to be; None where none is
    similar."""
    by_folded = {entry.casefold(): entry for entry in known}
    found = get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None
