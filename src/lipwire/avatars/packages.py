"""What a server finds avatars by: their names, their files, and which version of these is there.

The folder of avatars is one (``catalog``), a store another (``store.storedavatars``).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lipwire.avatars.package import Half
from lipwire.domain import AvatarFiles
from lipwire.domain.closing import Closing


def _nothing() -> None:
    pass


@dataclass(slots=True)
class HeldFiles(Closing):
    """Where an avatar's ``files`` lie; they stay there until ``close`` is called. ``measure`` is
    to be called, without arguments, when the avatar was opened and perhaps compiled."""

    files: AvatarFiles
    release: Callable[[], None] = field(default=_nothing)
    measure: Callable[[], None] = field(default=_nothing)

    def close(self) -> None:
        """Let the files go."""
        self.release()


class Packages(Protocol):
    """Avatars by name. Thread-safe."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all avatars in alphabetical order."""
        ...

    def __contains__(self, name: object) -> bool:
        """Whether there is an avatar of that name."""
        ...

    def files(self, name: str) -> AvatarFiles:
        """Return where the files of the avatar ``name`` lie, for whoever removes them. Raises
        NotFound where there is none, InvalidInput where they are not for this machine to remove."""
        ...

    def hold(self, name: str) -> HeldFiles:
        """Return where the files of the avatar ``name`` lie, which stay there until the caller
        closes it. Raises NotFound where there is none."""
        ...

    def version(self, name: str, need: frozenset[Half] = frozenset()) -> object:
        """Return a token that changes when the files of the avatar ``name`` do. ``need`` are the
        halves that have to be there. Raises NotFound where there is none, or such a half is
        missing."""
        ...

    def refresh(self, name: str) -> None:
        """See to it that ``version`` knows of the newest files of ``name``."""
        ...

    def opened_by(self, evict: Callable[[int], list[str]], unload: Callable[[str], object]) -> None:
        """Have ``evict(count)`` called where there is no room for files, as too many avatars are
        open: it closes some that nobody uses and returns their names; and ``unload(name)`` for
        an avatar whose files are to be removed."""
        ...
