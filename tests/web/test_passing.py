"""Requests over a Unix socket, as ASGI has them."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipwire.rpc.workers import socket_folder
from lipwire.web.passing import NotThere, answering_passed_on, is_passed_on, pass_on

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "method": "POST",
    "path": "/ä",
    "raw_path": b"/%C3%A4",
    "query_string": b"a=%ff",
    "headers": [(b"host", b"x"), (b"x-odd", b"\xff\x00{}")],
    "client": ("127.0.0.1", 5),
    "state": {"has_token": True},
    "extensions": {"websocket.http.response": {}},
    "app": object(),  # what is none of ASGI's stays
}


@pytest.fixture
def path() -> Iterator[Path]:
    with socket_folder() as folder:
        yield folder / "1.web"


def asked(
    path: Path, app: ASGIApp, sent: list[Message], scope: Scope | None = None
) -> tuple[bool, list[Message]]:
    """Whether ``app`` answers behind the socket, and what, where the client has ``sent`` that."""
    received: list[Message] = []

    async def receive() -> Message:
        if not sent:
            await asyncio.Event().wait()
        return sent.pop(0)

    async def send(message: Message) -> None:
        received.append(message)

    async def ask() -> bool:
        async with answering_passed_on(app, path):
            return await pass_on(path, scope or SCOPE, receive, send)

    return asyncio.run(asyncio.wait_for(ask(), 60)), received


def test_scope_body_and_answer_are_what_they_were(path: Path) -> None:
    scopes: list[Scope] = []
    bodies: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        while not bodies or bodies[-1].get("more_body"):
            bodies.append(await receive())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"\xe9")]})
        await send({"type": "http.response.body", "body": b"\x00" * 300_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    sent: list[Message] = [
        {"type": "http.request", "body": b"\xff" * 200_000, "more_body": True},
        {"type": "http.request", "body": b"", "more_body": False},
    ]
    answered, received = asked(path, app, list(sent))
    assert answered
    assert bodies == sent
    (scope,) = scopes
    assert is_passed_on(scope)
    assert not is_passed_on(SCOPE)
    for name in SCOPE.keys() - {"app", "headers", "client"}:
        assert scope[name] == SCOPE[name], name
    assert [tuple(pair) for pair in scope["headers"]] == SCOPE["headers"]
    assert tuple(scope["client"]) == SCOPE["client"]
    assert "app" not in scope
    start, first, last = received
    assert (start["status"], [tuple(pair) for pair in start["headers"]]) == (201, [(b"a", b"\xe9")])
    assert first == {"type": "http.response.body", "body": b"\x00" * 300_000, "more_body": True}
    assert last == {"type": "http.response.body", "body": b""}


def test_messages_of_a_websocket_keep_their_kind(path: Path) -> None:
    messages: list[Message] = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "ä", "bytes": None},
        {"type": "websocket.receive", "bytes": b"", "text": None},
        {"type": "websocket.receive", "bytes": b"\xff"},
        {"type": "websocket.disconnect", "code": 1001},
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in messages:
            await send(await receive())

    assert asked(path, app, list(messages), {"type": "websocket", "path": "/"}) == (True, messages)


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("http", {"type": "http.disconnect"}),
        ("websocket", {"type": "websocket.disconnect", "code": 1006}),
    ],
)
def test_an_app_is_told_when_whoever_passed_it_on_has_gone(
    path: Path, kind: str, last: Message
) -> None:
    told: list[Message] = []
    failed: list[OSError] = []

    async def ask() -> None:
        over = asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            told.append(await receive())
            try:
                for _ in range(3):
                    await send({"type": f"{kind}.send", "text": ""})
                    await asyncio.sleep(0)  # the loop notices after the first of them
            except OSError as error:
                failed.append(error)
            over.set()

        async with answering_passed_on(app, path):
            _, writer = await asyncio.open_unix_connection(path)
            head = f'[null, {{"type": "{kind}"}}]'.encode()
            writer.write(len(head).to_bytes(4, "big") + bytes(4) + head)
            await writer.drain()
            writer.close()
            await asyncio.wait_for(over.wait(), 60)

    asyncio.run(ask())
    assert told == [last]
    # As uvicorn has it: what an HTTP client does not get is nobody's error.
    assert bool(failed) == (kind == "websocket")


def test_a_process_that_is_not_there_has_read_nothing(path: Path) -> None:
    async def never(*_: object) -> Any:
        raise AssertionError("used")

    with pytest.raises(NotThere):
        asyncio.run(pass_on(path, SCOPE, never, never))


def test_an_app_that_fails_is_logged_and_has_not_answered(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "lipwire.web"):
        assert asked(path, app, []) == (False, [])
    assert "passed on failed" in caplog.text


def test_what_is_no_request_is_closed(path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("called")

    async def ask() -> None:
        async with answering_passed_on(app, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET")
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 60) == b""
            writer.close()

    asyncio.run(ask())


def test_what_is_under_way_ends_with_the_block(path: Path) -> None:
    ended: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def ask() -> None:
        begun = asyncio.Event()

        async def send(message: Message) -> None:
            begun.set()

        async def receive() -> Message:
            await asyncio.Event().wait()
            raise AssertionError

        async with answering_passed_on(app, path):
            task = asyncio.ensure_future(pass_on(path, SCOPE, receive, send))
            await begun.wait()
        assert ended == [True]
        assert await asyncio.wait_for(task, 60)

    asyncio.run(ask())
