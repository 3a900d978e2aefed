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
    """Where an avatar's ``files`` lie; they stay there until ``close``, which calls ``release`` the
    first time. A context manager. The holder calls ``measure`` after opening the avatar, because
    opening may have compiled it: its size on the disk is then counted anew. ``release`` and
    ``measure`` take no arguments and do nothing by default."""

    files: AvatarFiles
    release: Callable[[], None] = field(default=_nothing)
    measure: Callable[[], None] = field(default=_nothing)
    _closed: bool = field(default=False, init=False)

    def close(self) -> None:
        """Call ``release``: the files may be removed from then on. Closing twice is allowed."""
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
        """Return where the files of the avatar ``name`` lie, for a caller that removes them. Raises
        NotFound where there is none, InvalidInput where they cannot be removed here, such as those
        of a store."""
        ...

    def hold(self, name: str) -> HeldFiles:
        """Return where the files of the avatar ``name`` lie, which stay there until the caller
        closes what is returned. Files of a store are downloaded first, and the call waits for that.
        Raises NotFound where there is no such avatar; for a store also Unavailable where it is
        away, AvatarInvalid where what it has is damaged, Overloaded where too much is open, and
        StorageFailed where there is no room."""
        ...

    def version(self, name: str, need: frozenset[Half] = frozenset()) -> object:
        """Return a token to compare with ``==``: it differs when the files of the avatar ``name``
        were changed. ``need`` are the halves that have to be there, of ``model`` (the network) and
        ``frames``. Raises NotFound where there is no such avatar, or a half in ``need`` is missing;
        for a store Unavailable where it is away and nothing is known of the avatar."""
        ...

    def refresh(self, name: str) -> None:
        """Make the next ``version(name)`` look at the newest files of ``name``; a store may be
        asked for them, which is waited for. Raises nothing where there is no such avatar or the
        store is away."""
        ...

    def opened_by(self, evict: Callable[[int], list[str]], unload: Callable[[str], object]) -> None:
        """Set two functions that this object calls later; whoever opens avatars provides them.
        ``evict(count)`` is called where there is no room for further files because too many avatars
        are open: it has to close up to ``count`` avatars that nobody uses and return their names.
        ``unload(name)`` is called for an avatar whose files are to be removed: it has to close that
        avatar."""
        ...
