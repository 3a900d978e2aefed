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
    """Where an avatar's ``files`` lie; they stay there until ``close``, which calls ``release``
    the first time. A context manager. Whoever holds it calls ``measure`` after having opened the
    avatar, which may have compiled it, so that what it takes on the disk is counted anew. Both
    functions take no arguments and do nothing by default."""

    files: AvatarFiles
    release: Callable[[], None] = field(default=_nothing)
    measure: Callable[[], None] = field(default=_nothing)
    _closed: bool = field(default=False, init=False)

    def close(self) -> None:
        """Let the files go: they may be removed from then on. Closing twice is allowed."""
        if not self._closed:
            self._closed = True
            self.release()


class Packages(Protocol):
    """Avatars by name, of a folder (``Catalog``) or a store (``StoredAvatars``). Thread-safe. Where
    a name cannot be an avatar's, ``files``, ``hold`` and ``version`` raise InvalidInput."""

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
        closes what is returned. Of a store they are downloaded first, which is waited for. Raises
        NotFound where there is no such avatar; for a store also Unavailable where it is away,
        AvatarInvalid where what it has is damaged, Overloaded where too much is open, and
        StorageFailed where there is no room."""
        ...

    def version(self, name: str, need: frozenset[Half] = frozenset()) -> object:
        """Return a token to compare with ``==``: it differs when the files of the avatar ``name``
        were changed. ``need`` are the halves that have to be there, of ``model`` (the network) and
        ``frames``. Raises NotFound where there is no such avatar, or such a half is missing; for a
        store Unavailable where it is away and nothing is known of the avatar."""
        ...

    def refresh(self, name: str) -> None:
        """See to it that the next ``version(name)`` knows of the newest files of ``name``; a store
        may be asked for that. Raises nothing where there is no such avatar or the store is away."""
        ...

    def opened_by(self, evict: Callable[[int], list[str]], unload: Callable[[str], object]) -> None:
        """Set what this calls later, for whoever opens avatars: ``evict(count)`` where there is no
        room for files as too many avatars are open, which is to close up to ``count`` avatars that
        nobody uses and return their names; and ``unload(name)`` for an avatar whose files are to be
        removed, which is to close it."""
        ...
