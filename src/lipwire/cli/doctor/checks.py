"""What a check found."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What a check says: OK, all is well; WARNING, it works but should be looked at; FAULT, it does
    not or will not work; NOT_APPLICABLE, there is nothing to check here."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at, in texts for people: its ``name`` ("cores"), the ``outcome``,
    the value ``seen``, the value ``wanted`` (empty where that goes without saying), and what to do
    (``action``; empty where there is nothing to do)."""

    name: str
    outcome: Outcome
    seen: str
    wanted: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Checks of one subject: this machine, a configuration file, a running server."""

    subject: str
    checks: tuple[Check, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the group as a dictionary for ``json.dumps``: ``subject``, and ``checks`` with the
        fields of ``Check``."""
        return {
            "subject": self.subject,
            "checks": [asdict(check) | {"outcome": check.outcome.value} for check in self.checks],
        }


def ok(name: str, seen: str, wanted: str = "") -> Check:
    """Return a ``Check`` called ``name`` with the outcome OK: ``seen`` is what was found,
    ``wanted`` what was required (empty: nothing to say)."""
    return Check(name, Outcome.OK, seen, wanted)


def warning(name: str, seen: str, wanted: str, action: str) -> Check:
    """Return a ``Check`` called ``name`` with the outcome WARNING: ``seen`` is what was found,
    which works but differs from ``wanted``. ``action`` says what to do."""
    return Check(name, Outcome.WARNING, seen, wanted, action)


def fault(name: str, seen: str, wanted: str, action: str) -> Check:
    """Return a ``Check`` called ``name`` with the outcome FAULT: ``seen`` is what was found, which
    does not or will not work, and ``wanted`` what is required. ``action`` says what to do."""
    return Check(name, Outcome.FAULT, seen, wanted, action)


def not_applicable(name: str, seen: str, action: str = "") -> Check:
    """Return a ``Check`` called ``name`` with the outcome NOT_APPLICABLE; ``seen`` says why there
    is nothing to check. ``action`` says what may be done nevertheless (empty: nothing)."""
    return Check(name, Outcome.NOT_APPLICABLE, seen, "", action)


def holds(look: Callable[[], bool]) -> bool:
    """Return what ``look()`` returns, which is to ask about a path, such as ``path.is_file``; False
    where it raises OSError, as where a folder on the way may not be searched."""
    try:
        return look()
    except OSError:
        return False


def count(groups: Iterable[Group], outcome: Outcome) -> int:
    """Return how many checks of ``groups`` have ``outcome``."""
    return sum(check.outcome is outcome for group in groups for check in group.checks)
