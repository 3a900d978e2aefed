"""What takes what leaves a session: its client's outbox, or an encoder for many viewers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from lipwire.domain import UInt8Array
from lipwire.session.live.events import Event, Picture, Sound

if TYPE_CHECKING:
    from lipwire.session.live.liveavatar import LiveAvatar


class Shown:
    """A frame that is being shown. Its JPEG file or pixels (``data``) are composed once, when they
    are first asked for, and kept; its I420 planes are composed each time. For one thread at a time.
    ``picture`` says which frame of the session it is."""

    def __init__(
        self, picture: Picture, avatar: LiveAvatar, position: int, mouth: UInt8Array | None
    ) -> None:
        """``position`` is the frame of ``avatar`` that is shown in ``picture``, and ``mouth`` what
        is pasted into it, (320, 320, 3) uint8; None leaves it as it was filmed."""
        self.picture = picture
        self.avatar = avatar
        self.position = position
        self._mouth = mouth
        self._data: bytes | None = None

    @property
    def data(self) -> bytes:
        """The frame with its mouth, in the form that the avatar was opened for: a JPEG file, or raw
        pixels, height x width x 3 uint8, BGR, row by row. Takes the time of composing when it is
        first asked for. Raises InvalidInput where the avatar is closed, AvatarInvalid where its
        frames were changed."""
        if self._data is None:
            self._data = self.avatar.compose(self.position, self._mouth)
        return self._data

    def planes(self, out: UInt8Array | None = None) -> UInt8Array:
        """Return the frame composed as I420, (even height * 3/2, even width) uint8, the avatar's
        size rounded up to even numbers, written to ``out``, an array of that shape, where it is
        given. Raises InvalidInput where the avatar was not opened for I420 or is closed,
        AvatarInvalid where its frames were changed."""
        return self.avatar.planes(self.position, self._mouth, out)


class Output(Protocol):
    """Takes the pictures, sound and events of a live session, to send or keep them. Its methods
    must not wait for a client: they are quick, or drop what they are given."""

    @property
    def has_room(self) -> bool:
        """Whether ``show`` would accept a picture now. Where no output has room, the picture of a
        paced session (one whose frames leave each 40 ms) is not composed, and counts as dropped
        ("unread")."""
        ...

    @property
    def planes(self) -> bool:
        """Whether this output takes pictures as I420 (``Shown.planes``); else as JPEG files or
        pixels (``Shown.data``)."""
        ...

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Wait until a picture would be accepted or the output is closed, at most ``timeout_s``
        seconds (None: without limit). Returns whether a picture would be accepted. Only called for
        a session that is not paced: its frames leave when they are made, not each at its time."""
        ...

    def put(self, *items: Sound | Event) -> None:
        """Accept ``items``, sound and events, in the order in which they leave. Called with no
        items where a frame has no picture, so that an output which keeps sound until the next
        picture can send it. May be called with the session's lock held, so it must not wait, nor
        call the session."""
        ...

    def show(self, shown: Shown) -> None:
        """Accept the picture ``shown``, whose ``data`` or ``planes`` composes the frame. Called in
        a thread that composes, for one picture after the other in their order, and only where
        ``has_room``. What this raises ends the session."""
        ...

    def close(self) -> None:
        """Accept nothing more. Called when the session has ended, or the output was removed."""
        ...


class Outputs:
    """The outputs of one live session, as one. Iterable, and ``len()`` is their number.
    Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: tuple[Output, ...] = ()
        self._closed = False

    def __len__(self) -> int:
        """How many there are."""
        return len(self._all)

    def __iter__(self) -> Iterator[Output]:
        """Those that there are now."""
        return iter(self._all)

    @property
    def have_room(self) -> bool:
        """Whether at least one output would take a picture now; False where there is no output."""
        return any(output.has_room for output in self._all)

    @property
    def want_planes(self) -> bool:
        """Whether at least one output takes pictures as I420 and has room for one now."""
        return any(output.planes and output.has_room for output in self._all)

    def add(self, output: Output) -> None:
        """Give ``output`` all that leaves from now on. Does nothing where it was added already.
        Once these outputs are closed, ``output`` is closed at once instead."""
        with self._lock:
            if not self._closed:
                if output not in self._all:
                    self._all = (*self._all, output)
                return
        output.close()

    def remove(self, output: Output) -> None:
        """Give ``output`` nothing any more, and close it. It is closed even where it was never
        added."""
        with self._lock:
            self._all = tuple(kept for kept in self._all if kept is not output)
        output.close()

    def wait_for_room(self, timeout_s: float) -> bool:
        """Wait until every output would accept a picture, at most ``timeout_s`` seconds for each.
        Returns whether they all would; True where there is no output."""
        return all(output.wait_for_room(timeout_s) for output in self._all)

    def put(self, *items: Sound | Event) -> None:
        """Give every output ``items``, sound and events in the order in which they leave
        (``Output.put``)."""
        for output in self._all:
            output.put(*items)

    def show(self, shown: Shown) -> None:
        """Give the picture ``shown`` to the outputs that have room, one after the other in this
        thread. Called in a thread that composes. Raises InvalidInput or AvatarInvalid where the
        frame cannot be composed, and whatever else an output's ``show`` raises."""
        for output in self._all:
            if output.has_room:
                output.show(shown)

    def close(self) -> None:
        """Close all outputs, and each one that is added afterwards."""
        with self._lock:
            self._closed = True
        for output in self._all:
            output.close()
