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
        """Return what makes the mouths at rest of ``avatar``, with that of its frame ``position``
        made already, if it can be made now. Waits for the network, up to 10 s, so it is called
        without the session's lock; it changes nothing here."""
        resting = Resting(avatar, self._tenant, self._clock)
        resting.prepare([position])
        return resting

    def set_next(self, avatar: LiveAvatar, resting: Resting) -> LiveAvatar | None:
        """Have ``avatar`` shown at the next ``replace``, with ``resting`` as returned by
        ``prepared``. Returns the avatar that was to be shown next before, for the caller to close;
        None where there was none."""
        before, self._next = self._next, (avatar, resting)
        return None if before is None else before[0]

    def replace(self) -> LiveAvatar:
        """Show the next avatar, which there has to be, and return the one before, for the caller to
        close."""
        assert self._next is not None
        before = self.avatar
        self.avatar, self.resting = self._next
        self._next = None
        return before

    def take_all(self) -> list[LiveAvatar]:
        """Return the avatar that is shown and, if there is one, the avatar that was to be shown
        next, which no longer will be. The caller closes them."""
        following, self._next = self._next, None
        return [self.avatar] if following is None else [self.avatar, following[0]]
