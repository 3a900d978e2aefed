"""The avatar of a live session, which goes on with the new package where its own is replaced."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar
from lipwire.domain import (
    AudioWindows,
    AvatarChanged,
    Call,
    Float32Array,
    Mouths,
    UInt8Array,
    Unavailable,
)
from lipwire.domain.closing import Closing
from lipwire.domain.versions import parted
from lipwire.registry import Registry
from lipwire.serving import AudioEncoders, LoadedAvatar, PictureFormat
from lipwire.session.live import LiveAvatar, Rest

_REVISIONS: Final = 3
"""Attempts to have frames and network of one revision."""

_Made = TypeVar("_Made")


@dataclass(slots=True, eq=False)
class _Revision:
    """An avatar as it is now, or was."""

    loaded: LoadedAvatar
    frames: Avatar
    rest: Rest
    encoder: AudioEncoder
    close: Callable[[], None]
    users: int = 0


class SessionAvatar(Closing):
    """Avatar ``model_id``, or one version of it, for one live session, kept loaded until it is
    closed. Thread-safe; a context manager.

    Where its package is replaced meanwhile, its network turns out to be of another revision (hash
    of the files) than its frames. Then both are loaded anew, and the session goes on with them.
    """

    def __init__(
        self, model_id: str, avatars: Registry[LoadedAvatar], encoders: AudioEncoders, call: Call
    ) -> None:
        """``avatars`` loads avatars with their frames, and ``encoders`` their audio encoders; both
        are used until this object is closed. ``call`` is the request that it is opened for. Raises
        what loading raises (NotFound, AvatarInvalid, Overloaded, ...)."""
        self._model_id: Final = model_id
        self._avatars = avatars
        self._encoders = encoders
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._now = self._open(call)

    def live_avatar(self, frame_format: PictureFormat) -> LiveAvatar:
        """Return the avatar in the form that a session uses (``LiveAvatar``), which composes frames
        in ``frame_format``: JPEG files for "jpeg", raw pixels (BGR) for "raw". Where the package is
        replaced it uses the new one, like this object. Its ``close`` closes this object."""
        first = self._now
        return LiveAvatar(
            name=parted(self._model_id)[0],
            width=first.frames.width,
            height=first.frames.height,
            frame_count=first.frames.frame_count,
            compose=self._jpeg if frame_format == "jpeg" else self._raw,
            mouths=self.mouths,
            rest=_SessionRest(self),
            encoder=_SessionEncoder(self),
            close=self.close,
            planes=self._planes,
            look_ahead=self._look_ahead,
        )

    def mouths(self, position: int, windows: AudioWindows, call: Call) -> Mouths:
        """Return the mouths of frames ``position``, ``position + 1`` and so on (from 0; past the
        avatar's last frame its frames are shown back and forth), one for each of ``windows``: (N,
        320, 320, 3) uint8, in the package's colour order. ``windows`` are what the network is given
        of the sound around each frame, (N, 32, 16, 16) float32. ``call`` is the request that this
        is for, with its deadline.

        Raises AvatarChanged where the new package has frames of another size, Unavailable where
        frames and network are of different revisions in three attempts, and what ``Network.mouths``
        and loading an avatar raise, such as Overloaded, DeadlineExceeded and AvatarInvalid.
        """
        return self.of_one_revision(
            lambda now: now.loaded.network.mouths(position, windows, call=call).pixels, call
        )

    def of_one_revision(self, make: Callable[[_Revision], _Made], call: Call | None) -> _Made:
        """Return ``make(revision)``. ``revision`` is the avatar at this moment; its attributes are
        ``loaded`` (the ``LoadedAvatar``, with the network), ``frames`` (``Avatar``), ``rest``
        (``Rest``, its mouths for silence) and ``encoder`` (``AudioEncoder``). Where ``make`` raises
        AvatarChanged, because frames and network do not belong together any more, the avatar is
        loaded anew and ``make`` is called again, three times in all.

        ``call`` is the request that this is for, whose deadline limits loading (None: there is
        none). Raises Unavailable where ``make`` has raised AvatarChanged three times, AvatarChanged
        where the new frames are of another size, and what ``make`` or loading the avatar raises.
        """
        for _ in range(_REVISIONS):
            with self.used() as now:
                try:
                    return make(now)
                except AvatarChanged:
                    pass
            self._renew(now, call)
        raise Unavailable(
            f"avatar {self._model_id} is not the same here and where its network is; it is being"
            " replaced, or their folders differ"
        )

    @contextmanager
    def used(self) -> Iterator[_Revision]:
        """Give the ``with`` block the avatar at this moment, an object with the attributes
        ``loaded`` (``LoadedAvatar``), ``frames`` (``Avatar``), ``rest`` (``Rest``, its mouths for
        silence) and ``encoder`` (``AudioEncoder``). They are not closed before the block ends, even
        where the avatar is replaced. A context manager."""
        with self._lock:
            now = self._now
            now.users += 1
        try:
            yield now
        finally:
            with self._lock:
                now.users -= 1
                last = not now.users and now is not self._now
            if last:
                now.close()

    def close(self) -> None:
        """Give back the avatar, so that the registry may unload it. Call it once, when nobody uses
        this object any more."""
        self._now.close()

    def _jpeg(self, position: int, mouth: UInt8Array | None) -> bytes:
        with self.used() as now:
            return now.frames.jpeg(position, mouth)

    def _raw(self, position: int, mouth: UInt8Array | None) -> bytes:
        with self.used() as now:
            return now.frames.pixels(position, mouth).tobytes()

    def _look_ahead(self, position: int) -> None:
        with self.used() as now:
            now.frames.look_ahead(position)

    def _planes(
        self, position: int, mouth: UInt8Array | None, out: UInt8Array | None = None
    ) -> UInt8Array:
        with self.used() as now:
            return now.frames.planes(position, mouth, out)

    def _open(self, call: Call | None) -> _Revision:
        left_s = None if call is None else call.remaining_s()
        with ExitStack() as held:
            loaded = held.enter_context(self._avatars.use(self._model_id, timeout_s=left_s))
            encoder = held.enter_context(self._encoders.use(loaded.encoder, call))
            frames = loaded.frames
            assert frames is not None  # as __init__ asks for
            rest = loaded.rest_mouths(self._encoders, call)
            return _Revision(loaded, frames, rest, encoder, held.pop_all().close)

    def _renew(self, old: _Revision, call: Call | None) -> None:
        """Take the avatar anew, unless that was done since it was ``old``."""
        with self._loading:
            if self._now is not old:
                return
            left_s = None if call is None else call.remaining_s()
            self._avatars.load(self._model_id, timeout_s=left_s)
            new = self._open(call)
            sizes = [(each.frames.width, each.frames.height) for each in (old, new)]
            if sizes[0] != sizes[1]:
                new.close()
                raise AvatarChanged(
                    f"avatar {self._model_id} was {sizes[0][0]} x {sizes[0][1]} and was replaced by"
                    f" one of {sizes[1][0]} x {sizes[1][1]}; begin a new session"
                )
            with self._lock:
                self._now = new
                unused = not old.users
            if unused:
                old.close()


class _SessionEncoder(AudioEncoder):
    """The audio encoder of an avatar that may be replaced."""

    __slots__ = ("_avatar",)

    def __init__(self, avatar: SessionAvatar) -> None:
        self._avatar = avatar

    def encode(self, mels: Float32Array) -> Float32Array:
        """Return the rows of ``mels``. See ``AudioEncoder.encode``."""
        with self._avatar.used() as now:
            return now.encoder.encode(mels)


class _SessionRest:
    """The mouths at rest of an avatar that may be replaced."""

    def __init__(self, avatar: SessionAvatar) -> None:
        self._avatar = avatar

    @property
    def complete(self) -> bool:
        """See ``Rest.complete``."""
        with self._avatar.used() as now:
            return now.rest.complete

    def has(self, number: int) -> bool:
        """Return whether the mouth for frame ``number`` is there. See ``Rest.has``."""
        with self._avatar.used() as now:
            return now.rest.has(number)

    def ready(self, number: int) -> UInt8Array | None:
        """Return the mouth for frame ``number``, if it is there. See ``Rest.ready``."""
        with self._avatar.used() as now:
            return now.rest.ready(number)

    def mouth(self, number: int, *, call: Call | None = None) -> UInt8Array:
        """Return the mouth for frame ``number``. See ``Rest.mouth``."""
        return self._avatar.of_one_revision(lambda now: now.rest.mouth(number, call=call), call)
