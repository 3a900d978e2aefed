"""What a check found."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """What a check says: OK, all is well; WARNING, it works but should be looked at; FAULT, it does
    not or will not work; NOT_APPLICABLE, there is nothing to look at here."""

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
    """Return a ``Check`` called ``name`` with the outcome OK: what was ``seen`` is as it was
    ``wanted``."""
    return Check(name, Outcome.OK, seen, wanted)


def warning(name: str, seen: str, wanted: str, action: str) -> Check:
    """Return a ``Check`` called ``name`` with the outcome WARNING: what was ``seen`` works, but is
    not as ``wanted``. ``action`` says what to do."""
    return Check(name, Outcome.WARNING, seen, wanted, action)


def fault(name: str, seen: str, wanted: str, action: str) -> Check:
    """Return a ``Check`` called ``name`` with the outcome FAULT: what was ``seen`` does not or will
    not work; ``wanted`` would. ``action`` says what to do."""
    return Check(name, Outcome.FAULT, seen, wanted, action)


def not_applicable(name: str, seen: str, action: str = "") -> Check:
    """Return a ``Check`` called ``name`` with the outcome NOT_APPLICABLE, which has nothing to look
    at; ``seen`` says why. ``action`` says what may be done all the same; empty for nothing."""
    return Check(name, Outcome.NOT_APPLICABLE, seen, "", action)


def count(groups: Iterable[Group], outcome: Outcome) -> int:
    """Return how many checks of ``groups`` have ``outcome``."""
    return sum(check.outcome is outcome for group in groups for check in group.checks)
