"""Checks as people and programs read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from lipwire.cli.doctor.checks import Group, Outcome, count

_STYLES: Final = {
    Outcome.OK: "green",
    Outcome.WARNING: "yellow",
    Outcome.FAULT: "red",
    Outcome.NOT_APPLICABLE: "dim",
}


def as_json(groups: Sequence[Group]) -> str:
    """Return ``groups`` as a JSON document, with the numbers of faults and warnings, and with
    ``healthy``, which is true where there is no fault."""
    document = {
        "healthy": not count(groups, Outcome.FAULT),
        "faults": count(groups, Outcome.FAULT),
        "warnings": count(groups, Outcome.WARNING),
        "groups": [group.as_json() for group in groups],
    }
    return json.dumps(document, indent=2)


def print_tables(groups: Sequence[Group]) -> None:
    """Print a table for each of ``groups`` to standard output, and then the numbers of faults and
    warnings."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from lipwire.domain.wording import escaped

    console = Console()
    names = max((len(check.name) for group in groups for check in group.checks), default=0)
    for group in groups:
        console.print(Text(escaped(group.subject), style="bold"))
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True, min_width=len(Outcome.NOT_APPLICABLE))
        table.add_column(no_wrap=True, min_width=names)
        table.add_column(overflow="fold")
        for check in group.checks:
            told = Text(escaped(check.seen))
            if check.wanted:
                told.append(f"\nwanted: {escaped(check.wanted)}", "dim")
            if check.action:
                told.append(f"\n{escaped(check.action)}", "bold")
            outcome = Text(check.outcome.value, style=_STYLES[check.outcome])
            table.add_row(outcome, Text(escaped(check.name)), told)
        console.print(table)
        console.print()
    faults, warnings = count(groups, Outcome.FAULT), count(groups, Outcome.WARNING)
    console.print(Text(f"{_counted(faults, 'fault')}, {_counted(warnings, 'warning')}"))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
