"""What leaves a session, handed to tasks of the event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import cv2
import numpy as np
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lipwire.session.live import Event, LiveSession, LiveSessions, Output, Shown, Sound

_JPEG: Final = b"\xff\xd8"


class EventTap:
    """An ``Output`` that takes the events alone."""

    has_room: Final = False
    planes: Final = False

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[Event | None] = asyncio.Queue(1000)
        """The oldest is dropped where nobody takes them; None follows the last."""

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Return at once."""
        return True

    def put(self, *items: Sound | Event) -> None:
        """Take events."""
        for item in items:
            if not isinstance(item, Sound):
                self._hand(item)

    def show(self, shown: Shown) -> None:
        """Take no picture."""

    def close(self) -> None:
        """Say that nothing follows."""
        self._hand(None)

    def _hand(self, event: Event | None) -> None:
        def hand() -> None:
            if self.events.full():
                self.events.get_nowait()
            self.events.put_nowait(event)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(hand)


class PictureTap:
    """An ``Output`` that takes a picture when the one before was taken, as a JPEG file; what comes
    in between is left out."""

    planes: Final = False

    def __init__(self, quality: int = 80) -> None:
        """``quality`` is that of files that are made here, where the session has pixels."""
        self._loop = asyncio.get_running_loop()
        self._quality = quality
        self._free = True
        self.pictures: asyncio.Queue[bytes | None] = asyncio.Queue(2)
        """One picture; None follows the last."""

    @property
    def has_room(self) -> bool:
        """Whether the picture before was taken."""
        return self._free

    def wait_for_room(self, timeout_s: float | None = None) -> bool:
        """Return at once."""
        return True

    def put(self, *items: Sound | Event) -> None:
        """Take no sound and no event."""

    def show(self, shown: Shown) -> None:
        """Take a picture."""
        self._free = False
        data = shown.data
        if not data.startswith(_JPEG):
            avatar = shown.avatar
            pixels = np.frombuffer(data, np.uint8).reshape(avatar.height, avatar.width, 3)
            options = [cv2.IMWRITE_JPEG_QUALITY, self._quality]
            data = cv2.imencode(".jpg", pixels, options)[1].tobytes()
        self._hand(data)

    def close(self) -> None:
        """Say that nothing follows."""
        self._hand(None)

    async def next(self) -> bytes | None:
        """Return the next picture; None after the last."""
        data = await self.pictures.get()
        self._free = True
        return data

    def _hand(self, data: bytes | None) -> None:
        def hand() -> None:
            if not self.pictures.full():
                self.pictures.put_nowait(data)

        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(hand)


class OutputResponse(StreamingResponse):
    """An answer that goes on while ``output`` takes what leaves ``session``; the output is removed
    at its end, however it ends."""

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
