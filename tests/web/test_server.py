"""The web server's event loop."""

import asyncio
import socket
import threading

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.support.waiting import WAIT_S

from lipwire.domain import Unavailable
from lipwire.web.server import WebServer


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send


def test_an_event_loop_that_is_blocked_does_not_answer() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    begun, over = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        over.wait(WAIT_S)

    def make() -> object:
        loops.append(asyncio.get_running_loop())
        return app

    with WebServer(make, host="127.0.0.1", port=0) as server:  # type: ignore[arg-type]  # ASGI
        assert server.answers(WAIT_S)
        loops[0].call_soon_threadsafe(block)
        assert begun.wait(WAIT_S)
        assert not server.answers(0.0)
        over.set()
        assert server.answers(WAIT_S)
    assert server.answers(0.0)  # it is closed, as it should be


def test_an_app_that_cannot_be_made_is_told_and_its_port_is_free() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def make() -> ASGIApp:
        raise Unavailable("there is no app")

    for _ in range(2):
        with pytest.raises(Unavailable, match="there is no app"):
            WebServer(make, host="127.0.0.1", port=port)
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))
