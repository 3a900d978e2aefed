"""Weights that may be on a device."""

from typing import Final, Protocol

from lipwire.domain.eviction import NEVER_USED
from lipwire.engine.memory import Bytes, Region


class Source(Protocol):
    """Where weights come from."""

    @property
    def size_bytes(self) -> int: ...

    def write(self, image: Bytes) -> None:
        """Fill ``image``. May raise."""
        ...


class Resident:
    """One avatar's weights, wherever they are. Belongs to its ``Residency``."""

    __slots__ = (
        "closed",
        "host",
        "loading",
        "pins",
        "region",
        "size_bytes",
        "source",
        "worth",
    )

    def __init__(self, source: Source) -> None:
        self.source = source
        self.size_bytes: Final = source.size_bytes
        self.worth = NEVER_USED
        self.pins = 0
        self.loading = False
        self.closed = False
        self.region: Region | None = None
        self.host: Bytes | None = None
