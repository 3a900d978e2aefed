"""The mouths at rest of a session's avatar, made before they are shown."""

import math
from collections.abc import Callable, Iterable
from typing import Final

from lipwire.domain import Service
from lipwire.session.live.liveavatar import LiveAvatar

_AGAIN_S: Final = 1.0
"""After one could not be made, the next is tried so much later."""


class Resting:
    """Has the missing mouths at rest of one avatar made (the mouths shown while nobody speaks), one
    after the other. Its ``wanted`` is false for as long after each mouth as that one took (but not
    after those made with ``spoken``), so that half of the network's time is left for others, and
    for a second after one that could not be made. For one thread at a time."""

    def __init__(self, avatar: LiveAvatar, tenant: str, clock: Callable[[], float]) -> None:
        """``tenant`` is who the session is for. ``clock`` gives seconds."""
        self._avatar = avatar
        self._tenant = tenant
        self._clock = clock
        self._again_s = -math.inf
        self._any = False
        """Whether there is one, which can be shown."""

    @property
    def wanted(self) -> bool:
        """Whether ``prepare`` should be called now: a mouth is missing, and enough time has passed
        since the last one was made or failed. ``prepare`` itself does not check this."""
        return not self._avatar.rest.complete and self._clock() >= self._again_s

    def prepare(self, positions: Iterable[int], *, spoken: bool = False) -> bool:
        """Have one mouth at rest made, that of the first of ``positions`` (frames of the avatar)
        that has none, waiting for the network. Returns whether one was made: False where none of
        them is missing, or where it takes longer than 10 s, the network has too much to do, or no
        server or device can answer. Raises NotFound where the avatar was removed, AvatarInvalid
        where its files are damaged or its network fails, and AvatarChanged where it was replaced by
        one with frames of another size.

        ``spoken`` says that the frames are pauses in speech, where no other frame can be shown
        instead: the mouth is then made as urgently as those of the speech.
        """
        for position in positions:
            if self._avatar.rest.has(position):
                self._any = True
                continue
            began_s = self._clock()
            # Until the frame has one, another is shown that has: others go first.
            service: Service = "render" if self._any and not spoken else "live"
            mouth = self._avatar.rest_mouth(position, self._tenant, service)
            now = self._clock()
            if mouth is None:
                self._again_s = now + _AGAIN_S
                return False
            self._any = True
            if not spoken:
                self._again_s = now + (now - began_s)  # half the time is for others
            return True
        return False
