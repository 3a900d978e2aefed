"""What has to be removed of the renders that servers share: written down together with the change
that it follows from, until it is done. So neither a store that is away nor a restart keeps it."""

import sqlite3
from dataclasses import dataclass
from typing import Final, Literal, cast

from lipwire.renders.database import Database

Kind = Literal["video", "tenant", "avatar"]
"""One shared video, all of a tenant, or all of an avatar."""

ALL_OF: Final[tuple[Kind, ...]] = ("tenant", "avatar")
"""The kinds that other servers are told of, as they may have renders of their own of that name."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Something that servers share and that is to be removed. Of ``kind`` "video", ``name`` is that
    of one shared video in the store. Of "tenant" or "avatar" it is the name of one, all of whose
    renders go that were ordered before ``at_s``, in seconds since 1970 (without meaning for
    "video")."""

    kind: Kind
    name: str
    at_s: float


class Removals:
    """The removals that are written down and still to be done. Thread-safe, and shared with the
    server's other processes. Methods raise StorageFailed where the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self) -> list[Removal]:
        """Return the removals that are still to be done, in the order in which they were written
        down."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT kind, name, at_s FROM removals ORDER BY rowid")
            return [Removal(cast(Kind, row["kind"]), row["name"], row["at_s"]) for row in rows]

    def done(self, removal: Removal) -> None:
        """Forget ``removal``, which was done, unless it was written down anew with another time
        meanwhile."""
        with self._database.changing() as connection:
            connection.execute(
                "DELETE FROM removals WHERE kind = ? AND name = ? AND at_s = ?",
                (removal.kind, removal.name, removal.at_s),
            )

    def clear(self) -> None:
        """Forget all that is to be removed, as this server shares nothing (any more)."""
        if self.pending():
            with self._database.changing() as connection:
                connection.execute("DELETE FROM removals")


def note_removal(connection: sqlite3.Connection, kind: Kind, name: str, at_s: float) -> None:
    """Write down that ``name`` of ``kind`` is to be removed, with all that was ordered before
    ``at_s``, in seconds since 1970 (see ``Removal``), as part of the change that ``connection``
    (``Database.changing``) makes. Where it is written down already, ``at_s`` takes the place of its
    time."""
    connection.execute(
        "INSERT INTO removals (kind, name, at_s) VALUES (?, ?, ?)"
        " ON CONFLICT (kind, name) DO UPDATE SET at_s = excluded.at_s",
        (kind, name, at_s),
    )
