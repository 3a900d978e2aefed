"""Clients that leave while a session is being opened for them."""

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from starlette.types import ASGIApp, Message, Scope
from tests.support.liveparts import FakeAvatar, LiveTime
from tests.support.waiting import until
from tests.support.webparts import TOKEN, WebHouse

from lipwire.domain import Call
from lipwire.session.live import LiveAvatar, LiveSessions
from lipwire.web.app import web_app
from lipwire.web.hub import Hub
from lipwire.web.ice import IceServers

SOCKET: Final[Scope] = {
    "type": "websocket",
    "path": "/v1/socket",
    "query_string": b"avatar=anna",
    "headers": [(b"host", b"localhost"), (b"authorization", f"Bearer {TOKEN}".encode())],
    "client": ("127.0.0.1", 50_000),
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}


class Opening:
    """The app in the running event loop, without a server."""

    def __init__(self) -> None:
        self.avatar = FakeAvatar()
        self.asked = threading.Event()
        """An avatar is being opened."""
        self.may_open = threading.Event()
        self.may_open.set()
        time = LiveTime()
        self.sessions = LiveSessions(self._open, time.threads, clock=time.clock)
        self.hub = Hub(self.sessions, IceServers(), clock=time.clock)
        self.app: ASGIApp = web_app(
            self.hub, lambda: ["anna"], healthy=lambda: True, hosts=["x"], token=TOKEN
        )

    def _open(self, name: str, call: Call) -> LiveAvatar:
        self.asked.set()
        assert self.may_open.wait(120)
        return self.avatar.live()

    async def socket(self, gone_at: str) -> list[str]:
        """Have a socket of a new session begin, whose client has gone when a message of type
        ``gone_at`` is sent; the types of those that it was sent."""
        sent: list[str] = []

        async def send(message: Message) -> None:
            if message["type"] == gone_at:
                raise OSError
            sent.append(message["type"])

        async def receive() -> Message:
            if not sent:
                return {"type": "websocket.connect"}
            return {"type": "websocket.disconnect", "code": 1006}

        await self.app(dict(SOCKET), receive, send)
        return sent


@asynccontextmanager
async def opening() -> AsyncIterator[Opening]:
    opening = Opening()
    try:
        yield opening
    finally:
        opening.may_open.set()
        opening.sessions.close()
        await opening.hub.close()


@pytest.mark.parametrize(
    ("gone_at", "sent", "left"),
    [
        ("websocket.accept", [], 0),
        ("websocket.send", ["websocket.accept"], 0),
        ("", ["websocket.accept", "websocket.send"], 1),  # it may come back
    ],
)
def test_a_session_that_nobody_was_told_of_ends(gone_at: str, sent: list[str], left: int) -> None:
    async def main() -> None:
        async with opening() as each:
            assert await each.socket(gone_at) == sent
            assert each.sessions.stats().opened == 1
            assert each.sessions.stats().active == left
            assert each.avatar.closed == 1 - left

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_session_that_is_opened_when_its_request_is_over_ends() -> None:
    async def main() -> None:
        async with opening() as each:
            each.may_open.clear()
            request = asyncio.ensure_future(each.socket(""))
            await asyncio.to_thread(each.asked.wait, 120)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
            each.may_open.set()
            while each.avatar.closed == 0:
                await asyncio.sleep(0.001)
            assert each.sessions.stats().active == 0

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_client_that_closes_its_connection_meanwhile_leaves_no_session() -> None:
    asked, may_open = threading.Event(), threading.Event()
    avatar = FakeAvatar()

    def open_avatar(name: str) -> LiveAvatar:
        asked.set()
        assert may_open.wait(120)
        return avatar.live()

    with WebHouse(open_avatar=open_avatar) as house:
        client = socket.create_connection(("127.0.0.1", house.port))
        client.sendall(
            b"GET /v1/socket?avatar=anna HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        assert asked.wait(120)
        # Closed at once (SO_LINGER), so that the server hears of it before it answers.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        until(lambda: not connections(house))
        may_open.set()
        until(lambda: avatar.closed)
        assert house.sessions.running == 0


def connections(house: WebHouse) -> int:
    server = house.server._server
    assert server is not None
    return len(server.server_state.connections)
