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
    """Something that servers share and that has to be removed. With ``kind`` "video", ``name`` is
    the name of one video in the store, and ``at_s`` has no meaning. With "tenant" or "avatar",
    ``name`` is that of a tenant or an avatar, all of whose renders that were ordered before
    ``at_s``, in seconds since 1970, are to be removed."""

    kind: Kind
    name: str
    at_s: float


class Removals:
    """What still has to be removed from the cache of finished videos that servers share, as it is
    written down in the database: each ``Removal`` is one video, or all videos of a tenant or of an
    avatar. Only the list is kept here; whoever does a removal calls ``done``. Thread-safe, and
    shared with the server's other processes. Methods raise StorageFailed where the database cannot
    be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self) -> list[Removal]:
        """Return the removals that still have to be done, in the order in which they were written
        down."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT kind, name, at_s FROM removals ORDER BY rowid")
            return [Removal(cast(Kind, row["kind"]), row["name"], row["at_s"]) for row in rows]

    def done(self, removal: Removal) -> None:
        """Forget ``removal``, which was done. It stays where it was meanwhile written down again
        with another time."""
        with self._database.changing() as connection:
            connection.execute(
                "DELETE FROM removals WHERE kind = ? AND name = ? AND at_s = ?",
                (removal.kind, removal.name, removal.at_s),
            )

    def clear(self) -> None:
        """Forget all removals. For a server that shares nothing, or no longer does."""
        if self.pending():
            with self._database.changing() as connection:
                connection.execute("DELETE FROM removals")


def note_removal(connection: sqlite3.Connection, kind: Kind, name: str, at_s: float) -> None:
    """Write down in the list that ``Removals`` reads what has to be removed from the cache that
    servers share. With ``kind`` "video" it is the video that is called ``name`` in the store; with
    "tenant" or "avatar" it is all videos of the tenant or avatar ``name`` that were ordered before
    ``at_s``, in seconds since 1970. ``connection`` comes from ``Database.changing``; this is a part
    of its change. Where that ``name`` of that ``kind`` is written down already, its time is
    replaced with ``at_s``."""
    connection.execute(
        "INSERT INTO removals (kind, name, at_s) VALUES (?, ?, ?)"
        " ON CONFLICT (kind, name) DO UPDATE SET at_s = excluded.at_s",
        (kind, name, at_s),
    )
