"""An avatar of a server, as a render uses it: its network runs among the requests of others."""

import logging
import threading
from typing import Final

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.domain import Call, Float32Array, Overloaded, UInt8Array
from lipwire.serving import LoadedAvatar
from lipwire.session import Stopwatch

_LOG: Final = logging.getLogger(__name__)
_AGAIN_S: Final = 1.0
_LONGEST_S: Final = 10.0


class ServedPerformer:
    """A loaded avatar with its audio encoder, for one render (a ``Performing``). All mouths are
    requested as part of one call; where the network is too busy to accept a request, it is sent
    again until the call ends. Methods may be called from several threads. Nothing has to be closed.
    """

    def __init__(self, loaded: LoadedAvatar, encoder: AudioEncoder, call: Call) -> None:
        """``loaded`` was opened for video, so that its ``frames`` are not None; its network is
        asked as part of ``call``, the request that the render belongs to."""
        assert loaded.frames is not None
        self.avatar: Final[Avatar] = loaded.frames
        self.encoder: Final = encoder
        self._network = loaded.network
        self._own_revision = loaded.revision.model
        self._revisions: set[str] = set()
        self._call = call
        self._ended = threading.Event()
        call.on_end(self._ended.set)

    @property
    def model_revision(self) -> str:
        """The revision of the network that has made all mouths so far; empty where it is not known
        or there were several, because servers do not have the same files."""
        return next(iter(self._revisions)) if len(self._revisions) == 1 else ""

    def mouths(self, first: int, windows: Float32Array, watch: Stopwatch) -> UInt8Array:
        """Return the mouths, (k, 320, 320, 3) uint8 in the package's colour order, of the avatar's
        frames ``first``, ``first + 1`` and so on (past the last, back and forth), one for each of
        ``windows``, (k, 32, 16, 16) float32, which are what the network hears of each frame. Waits
        while the network is too busy; ``watch`` adds up the time as stage "network". Raises
        Cancelled or DeadlineExceeded where the call ends before, AvatarChanged where the network is
        of another package by now, NotFound where there is no such avatar any more, InvalidInput
        where ``windows`` have another shape or are not finite, AvatarInvalid where the network
        cannot be loaded or fails, and Unavailable where nothing can run it."""
        with watch.measure("network"):
            while True:
                self._call.check()
                try:
                    drawn = self._network.mouths(first, windows, call=self._call)
                    self._revisions.add(drawn.revision or self._own_revision)
                    return drawn.pixels
                except Overloaded as error:
                    _LOG.debug("frames of a render wait: %s", error)
                    wait_s = error.retry_after_s or _AGAIN_S
                    self._ended.wait(min(_LONGEST_S, wait_s))
