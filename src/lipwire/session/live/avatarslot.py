"""Which avatar a live session shows, and which it will show next."""

from collections.abc import Callable
from typing import Final

from lipwire.session.live.liveavatar import LiveAvatar
from lipwire.session.live.resting import Resting


class AvatarSlot:
    """The avatar that one live session shows (``avatar``), with its mouths at rest (``resting``,
    the mouths shown while nobody speaks), and the avatar that is to replace it, if any. It closes
    no avatar: its owner does. Not thread-safe: its owner calls it under the session's lock, except
    where a method says otherwise."""

    def __init__(self, avatar: LiveAvatar, tenant: str, clock: Callable[[], float]) -> None:
        """``tenant`` is whom mouths at rest are made for; ``clock`` gives seconds."""
        self._tenant: Final = tenant
        self._clock: Final = clock
        self.avatar = avatar
        self.resting = Resting(avatar, tenant, clock)
        self._next: tuple[LiveAvatar, Resting] | None = None

    @property
    def rest_wanted(self) -> bool:
        """Whether missing mouths at rest of the avatar are to be made now. False while another
        avatar is to replace it."""
        return self._next is None and self.resting.wanted

    @property
    def replacing(self) -> bool:
        """Whether another avatar was set to be shown next (``set_next``) and is not shown yet."""
        return self._next is not None

    def prepared(self, avatar: LiveAvatar, position: int) -> Resting:
        """Return a ``Resting`` for ``avatar``, to be given to ``set_next``: the object that asks
        the network for mouths at rest that are missing. Before it is returned, it asks for the one
        of frame ``position`` of the avatar, if that is possible now. Waits for the network, up to
        10 s, so call this without the session's lock; it changes nothing here. Raises errors of the
        network that are not due to load or time: NotFound, AvatarInvalid or AvatarChanged."""
        resting = Resting(avatar, self._tenant, self._clock)
        resting.prepare([position])
        return resting

    def set_next(self, avatar: LiveAvatar, resting: Resting) -> LiveAvatar | None:
        """Have ``avatar`` shown at the next ``replace``, with ``resting``, which ``prepared``
        returned. Returns the avatar of an earlier ``set_next`` that was not shown yet, for the
        caller to close; None where there was none."""
        before, self._next = self._next, (avatar, resting)
        return None if before is None else before[0]

    def replace(self) -> LiveAvatar:
        """Show the avatar that ``set_next`` was given, which there has to be, and return the avatar
        that was shown before, for the caller to close."""
        assert self._next is not None
        before = self.avatar
        self.avatar, self.resting = self._next
        self._next = None
        return before

    def take_all(self) -> list[LiveAvatar]:
        """Return the avatar that is shown and, if there is one, the avatar of ``set_next``, which
        will not be shown any more. The caller closes them."""
        following, self._next = self._next, None
        return [self.avatar] if following is None else [self.avatar, following[0]]
