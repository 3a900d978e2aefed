"""What an import found, what it assumes, and what a person should know, for a table."""

from dataclasses import dataclass, field

from lipwire.domain.wording import escaped


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of an import: the ``part`` of the package, what was ``found`` for it,
    and what is made of that (``use``)."""

    part: str
    found: str
    use: str


@dataclass(slots=True)
class Report:
    """What an import reports to a person: ``rows`` of a table, what is ``assumed`` because no file
    says it, and ``notes`` on what is unusual; each is one line, in the order in which they were
    added."""

    rows: list[Row] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def row(self, part: str, found: str, use: str) -> None:
        """Add a row to the table: which ``part`` of the package, what was ``found`` for it, and
        what is made of that (``use``)."""
        self.rows.append(Row(part, escaped(found), escaped(use)))

    def assume(self, line: str) -> None:
        """Add ``line``, which says what is assumed because no file says it."""
        self.assumed.append(escaped(line))

    def note(self, line: str) -> None:
        """Add ``line``, which says what is unusual."""
        self.notes.append(escaped(line))
