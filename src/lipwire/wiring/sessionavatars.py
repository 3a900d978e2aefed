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

    Where its network turns out to be of another revision (hash of the files) than its frames are,
    as the package was replaced meanwhile, both are loaded anew, and the session goes on with them.
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
        """Return the avatar in the form that a session uses, which composes frames as
        ``frame_format`` says: JPEG files for "jpeg", else raw pixels (BGR). It goes on with the new
        package where this object does, and its ``close`` closes this object."""
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
        """Return the mouths of frames ``position``, ``position + 1`` and so on, one for each of
        ``windows``, what the network hears of a frame: (N, 32, 16, 16) float32 gives (N, 320, 320,
        3) uint8, BGR. ``call`` is the request that this is done for, with its deadline. Raises
        AvatarChanged where the package was replaced by one that the session cannot go on with,
        Unavailable where frames and network go on being of different revisions, and what the
        network raises (Overloaded, DeadlineExceeded, ...)."""
        return self.of_one_revision(
            lambda now: now.loaded.network.mouths(position, windows, call=call).pixels, call
        )

    def of_one_revision(self, make: Callable[[_Revision], _Made], call: Call | None) -> _Made:
        """Return ``make(revision)``, where ``revision`` is the avatar as it is now: its frames, its
        network and its audio encoder. Where ``make`` raises AvatarChanged, as they do not belong
        together any more, they are loaded anew and it is called again, three times at most.
        ``call`` is the request that this is done for: its deadline is that of loading (None: there
        is none). Raises Unavailable where they go on being different, AvatarChanged where the new
        frames are of another size, and what ``make`` or loading raises."""
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
        """Give the ``with`` block the frames and network of the avatar as they are now; they are
        not closed before it ends, even where the avatar is replaced. A context manager."""
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
