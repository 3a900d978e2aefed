"""What leaves a session, handed to tasks of the event loop."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from typing import Any, Final, Literal

import cv2
import numpy as np
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lipwire.audio import to_int16
from lipwire.session.live import Event, LiveSession, LiveSessions, Output, Shown, Sound

_JPEG: Final = b"\xff\xd8"
_HEAD: Final = struct.Struct("<B3xI")
_PICTURE: Final = 1
_SOUND: Final = 2
_MOST_WAITING: Final = 50
"""Two seconds of sound."""


class EventTap:
    """An ``Output`` of a session that takes only its events, and puts them into the asyncio queue
    ``events``; None is added after the last. Where 1000 events wait, the oldest is dropped. Made in
    the event loop."""

    has_room: Final = False
    planes: Final = False

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[Event | None] = asyncio.Queue(1000)
        """The oldest is dropped where nobody takes them; None follows the last."""

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Return True at once, whatever ``timeout_s``: events wait for nobody."""
        return True

    def put(self, *items: Sound | Event) -> None:
        """Add the events of ``items`` to ``events``; sound is ignored. In any thread."""
        for item in items:
            if not isinstance(item, Sound):
                self._hand(item)

    def show(self, shown: Shown) -> None:
        """Ignore ``shown``, a picture."""

    def close(self) -> None:
        """Add None to ``events``, which says that nothing follows. In any thread."""
        self._hand(None)

    def _hand(self, event: Event | None) -> None:
        def hand() -> None:
            if self.events.full():
                self.events.get_nowait()
            self.events.put_nowait(event)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(hand)


class PictureTap:
    """An ``Output`` of a session that keeps one picture, as a JPEG file, until ``next`` has
    returned it; the pictures in between are left out. Made in the event loop."""

    planes: Final = False

    def __init__(self, quality: int = 80) -> None:
        """``quality``, 1 to 100, is that of JPEG files made here, of a session whose frames are raw
        pixels."""
        self._loop = asyncio.get_running_loop()
        self._quality = quality
        self._free = True
        self.pictures: asyncio.Queue[bytes | None] = asyncio.Queue(2)
        """One picture; None follows the last."""

    @property
    def has_room(self) -> bool:
        """Whether a picture would be taken in: true at the beginning, and once ``next`` has
        returned the picture before."""
        return self._free

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Return True at once, whatever ``timeout_s``: a picture for which there is no room is left
        out."""
        return True

    def put(self, *items: Sound | Event) -> None:
        """Ignore sound and events."""

    def show(self, shown: Shown) -> None:
        """Make a JPEG file of ``shown``, a picture with its data, for ``next`` to return; a session
        calls this where there is room. In any thread."""
        self._free = False
        self._hand(_jpeg_of(shown, self._quality))

    def close(self) -> None:
        """Have ``next`` return None after the picture that waits, because nothing follows. In any
        thread."""
        self._hand(None)

    async def next(self) -> bytes | None:
        """Wait for the next picture and return it, a JPEG file; None after the last."""
        data = await self.pictures.get()
        self._free = True
        return data

    def _hand(self, data: bytes | None) -> None:
        def hand() -> None:
            if not self.pictures.full():
                self.pictures.put_nowait(data)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(hand)


class MediaTap:
    """An ``Output`` of a session that makes messages (bytes) of its pictures and sound, which
    ``next`` returns; a picture is left out while the one before waits.

    Each message begins with a head of 8 bytes. The first byte says what follows the head: 1 a JPEG
    file, 2 PCM (mono, 16 bits, little endian, at the session's sound rate). Three zero bytes
    follow, and the time on the session's clock in ms (uint32, little endian). Made in the event
    loop.
    """

    planes: Final = False

    def __init__(self, quality: int = 80) -> None:
        """``quality``, 1 to 100, is that of JPEG files made here, of a session whose frames are raw
        pixels."""
        self._loop = asyncio.get_running_loop()
        self._quality = quality
        self._free = True
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(_MOST_WAITING)

    @property
    def has_room(self) -> bool:
        """Whether a picture would be taken in: true at the beginning, and once the picture before
        was returned by ``next`` or dropped."""
        return self._free

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Return True at once, whatever ``timeout_s``: a picture for which there is no room is left
        out."""
        return True

    def put(self, *items: Sound | Event) -> None:
        """Add the sound of ``items`` as messages for ``next``; events are ignored. Where 50
        messages wait, the oldest is dropped. In any thread."""
        for item in items:
            if isinstance(item, Sound):
                self._hand(_message(_SOUND, item.at_ms, to_int16(item.samples).tobytes()))

    def show(self, shown: Shown) -> None:
        """Add ``shown``, a picture with its data, as a message with a JPEG file, for ``next``; a
        session calls this where there is room. Where 50 messages wait, the oldest is dropped. In
        any thread."""
        self._free = False
        self._hand(_message(_PICTURE, shown.picture.at_ms, _jpeg_of(shown, self._quality)))

    def close(self) -> None:
        """Have ``next`` return None after the messages that wait, because nothing follows. In any
        thread."""
        self._hand(None)

    async def next(self) -> bytes | None:
        """Wait for the next message and return it: 8 bytes of head, and a JPEG file or PCM. None
        after the last."""
        data = await self._messages.get()
        self._look(data)
        return data

    def _look(self, message: bytes | None) -> None:
        """Take another picture once the last is out of the queue."""
        if message is not None and message[0] == _PICTURE:
            self._free = True

    def _hand(self, message: bytes | None) -> None:
        def hand() -> None:
            if self._messages.full():
                self._look(self._messages.get_nowait())
            self._messages.put_nowait(message)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(hand)


class OutputResponse(StreamingResponse):
    """An HTTP answer whose body is the iterator ``content``. While it is sent, ``output`` is one of
    the outputs of ``session``; when the answer ends, for whatever reason, the output is removed
    from the session and closed."""

    def __init__(
        self,
        session: LiveSession,
        output: Output,
        content: AsyncIterator[Any],
        media_type: str,
        *,
        sessions: LiveSessions | None = None,
    ) -> None:
        """``sessions`` are told of a client that comes and goes; None where it does not count as
        one."""
        super().__init__(content, media_type=media_type, headers={"Cache-Control": "no-store"})
        self._session = session
        self._output = output
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        self._session.add_output(self._output)
        if self._sessions is not None:
            self._sessions.attach(self._session)
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._sessions is not None:
                self._sessions.detach(self._session)
            self._session.remove_output(self._output)


def _jpeg_of(shown: Shown, quality: int) -> bytes:
    data = shown.data
    if data.startswith(_JPEG):
        return data
    avatar = shown.avatar
    pixels = np.frombuffer(data, np.uint8).reshape(avatar.height, avatar.width, 3)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _message(kind: Literal[1, 2], at_ms: int, data: bytes) -> bytes:
    return _HEAD.pack(kind, at_ms) + data
