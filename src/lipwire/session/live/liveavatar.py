"""An avatar as a live session uses it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np

from lipwire.audio import AudioEncoder
from lipwire.domain import (
    AudioWindows,
    Call,
    DeadlineExceeded,
    InvalidInput,
    Mouths,
    Overloaded,
    Service,
    UInt8Array,
    Unavailable,
)
from lipwire.session.live.events import Picture
from lipwire.session.live.outputs import Shown

Planes = Callable[[int, UInt8Array | None, UInt8Array | None], UInt8Array]

_LOG: Final = logging.getLogger(__name__)
_REST_TIMEOUT_S: Final = 10.0
_REST_BACK: Final = 100
"""Frames before one at rest that may be shown in its place."""


class Rest(Protocol):
    """The mouths of an avatar at rest (what is shown while nobody speaks), one for each frame of
    the avatar, by the frame's number; numbers past the last frame run back and forth over the
    frames. Mouths are (320, 320, 3) uint8, in the colour order of the avatar's package ("bgr" or
    "rgb"). Thread-safe."""

    @property
    def complete(self) -> bool:
        """Whether the mouths at rest of all of the avatar's frames are made."""
        ...

    def has(self, number: int) -> bool:
        """Return whether the mouth at rest for frame ``number`` is made."""
        ...

    def ready(self, number: int) -> UInt8Array | None:
        """Return the mouth at rest for frame ``number``, (320, 320, 3) uint8, without waiting; None
        where it is not made yet. Does not have it made."""
        ...

    def mouth(self, number: int, *, call: Call | None = None) -> UInt8Array:
        """Return the mouth at rest for frame ``number``, (320, 320, 3) uint8. Where it is not made
        yet, waits for the network to make it. ``call`` is the request that this is done for, with
        its time limit (None: no particular request, and no time limit). Raises the errors of the
        network: Overloaded, DeadlineExceeded, Unavailable, AvatarChanged, ...."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LiveAvatar:
    """What a live session needs of its avatar. Its callables are used from several threads at once;
    ``position`` in their arguments is a frame of the avatar (past the last, back and forth), and
    ``mouth`` what is pasted into it, (320, 320, 3) uint8, in the colour order of the avatar's
    package ("bgr" or "rgb"); None for nothing.

    ``compose(position, mouth)`` returns the frame as a JPEG file or raw BGR pixels,
    ``planes(position, mouth, out)`` as I420. ``mouths(position, windows, call)`` waits for the
    network's mouths of consecutive frames, (n, 320, 320, 3) uint8, from windows (n, 32, 16, 16)
    float32. ``look_ahead(position)`` has the I420 frames behind that one prepared, and does not
    wait. ``close()`` is called once, when the session no longer uses the avatar.
    """

    name: str
    width: int
    height: int
    frame_count: int
    compose: Callable[[int, UInt8Array | None], bytes]
    """Called as (position, mouth): the frame with the mouth on it, a JPEG file or raw pixels."""
    mouths: Callable[[int, AudioWindows, Call], Mouths]
    """Called as (position, windows, call): the mouths of consecutive frames."""
    rest: Rest
    encoder: AudioEncoder
    close: Callable[[], None]
    """Called once, when no session method uses it any more."""
    planes: Planes = field(default_factory=lambda: no_planes)
    """Called as (position, mouth, out): the frame as I420; see ``Avatar.planes``."""
    look_ahead: Callable[[int], None] = field(default_factory=lambda: nothing_ahead)
    """Called with a position whose frame is shown as I420, so that those behind it are prepared;
    does not wait."""

    def rest_mouth(self, position: int, tenant: str, service: Service) -> UInt8Array | None:
        """Return the mouth at rest (shown while nobody speaks) for frame ``position``, (320, 320,
        3) uint8. Where it is not there yet, waits up to 10 s for the network to make it.
        ``service`` ("live", "batch" or "render") and ``tenant``, who it is made for, decide when
        that is done among other requests. Returns None where it takes longer, the network has too
        much to do, or no server or device can answer. Raises NotFound where the avatar was removed,
        AvatarInvalid where its files are damaged or its network fails, and AvatarChanged where it
        was replaced by one with frames of another size."""
        mouth = self.rest.ready(position)
        if mouth is not None:
            return mouth
        call = Call(_REST_TIMEOUT_S, service=service, tenant=tenant)
        try:
            return self.rest.mouth(position, call=call)
        except (DeadlineExceeded, Overloaded, Unavailable) as error:
            _LOG.debug("a mouth at rest was not made: %s", error)
            return None
        finally:
            call.end()

    def shown(self, picture: Picture) -> Shown:
        """Return the frame for ``picture``, ready to be composed: the avatar's frame at the
        position of ``picture``, and the mouth that is to be pasted into it, mixed with the mouth at
        rest where the picture's weight is below 1.

        Where the picture has no speaking mouth, or shows no piece of speech any more, and the mouth
        at rest of its own frame was not made yet, the nearest earlier frame that has one is shown,
        at most 99 frames before it, because the mouth of another frame would not fit its face.
        Where there is none either, the frame is left as it was filmed.
        """
        position, mouth = picture.position, picture.mouth
        if mouth is None or picture.weight < 1:
            if mouth is None or not picture.speech:
                position = self._at_rest(position)
            rest = self.rest.ready(position)
            if mouth is None:
                mouth = rest
            elif rest is not None:
                mouth = blend(rest, mouth, picture.weight)
        return Shown(picture, self, position, mouth)

    def _at_rest(self, position: int) -> int:
        """The last position up to ``position`` that has a mouth at rest; ``position`` where none
        shortly before it has one."""
        before = range(position, max(-1, position - _REST_BACK), -1)
        return next((each for each in before if self.rest.has(each)), position)


def nothing_ahead(position: int) -> None:
    """Do nothing. It is the ``LiveAvatar.look_ahead`` of avatars that have nothing to prepare."""


def no_planes(position: int, mouth: UInt8Array | None, out: UInt8Array | None = None) -> UInt8Array:
    """Raise InvalidInput, always. It is the ``LiveAvatar.planes`` of avatars that were opened for
    JPEG or raw pixels only, not for I420."""
    raise InvalidInput("the avatar was not opened for video")


def blend(rest: UInt8Array, mouth: UInt8Array, weight: float) -> UInt8Array:
    """Return a mix of two mouths: ``weight`` (0 to 1) of ``mouth`` and 1 - ``weight`` of ``rest``.
    All are (320, 320, 3) uint8, with one order of channels; the result is a new array."""
    parts = round(weight * 256)
    mixed = mouth.astype(np.uint16) * parts + rest.astype(np.uint16) * (256 - parts)
    return ((mixed + 128) >> 8).astype(np.uint8)
