"""Requests passed on to another process of the server, which answers them as if they had come to
its own port: ASGI's messages (https://asgi.readthedocs.io), over a Unix socket.

A connection is one request: first its scope, then what the client sends one way and what it is
answered the other, as ASGI has it, so that bodies that go on, server-sent events and WebSockets
need nothing of their own. Each message is

    4 bytes, big endian   length of the JSON
    4 bytes, big endian   length of the data
    JSON                  the message without its data, bytes in it as {"bytes": text in Latin-1}
    data                  its "body", or its "bytes"

The socket is open to the server's own user alone, and what comes over it was checked by whoever
passes it on.
"""

import asyncio
import json
import logging
import struct
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG: Final = logging.getLogger("lipwire.web")
_LENGTHS: Final = struct.Struct(">II")
_REST_BYTES: Final = 64 * 1024
_DATA: Final = ("body", "bytes")
_PASSED_ON: Final = "lipwire.passed_on"
_SCOPE: Final = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
    "subprotocols",
    "state",
    "extensions",
)


class NotThere(Exception):
    """Raised by ``pass_on`` where no process listens at the socket; nothing of the request was read
    or answered, so another process may be asked."""


def is_passed_on(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope`` came from another process of the server
    (``pass_on``), and not from a client itself."""
    return _PASSED_ON in scope


async def pass_on(path: Path, scope: Scope, receive: Receive, send: Send) -> bool:
    """Have the process at the Unix socket ``path`` answer the ASGI request of ``scope``,
    ``receive`` and ``send``, and wait until the request has ended. Returns True where the process
    has answered something; False where it ended before, and the caller has to answer. Raises
    NotThere where no process listens at ``path``."""
    try:
        reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        raise NotThere from None
    sending = asyncio.ensure_future(_send_on(writer, scope, receive))
    answered = False
    try:
        with suppress(OSError):  # the client has gone
            while (message := await _read(reader)) is not None:
                await send(message)
                answered = True
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    return answered


@asynccontextmanager
async def answering_passed_on(app: ASGIApp, path: Path) -> AsyncIterator[None]:
    """Listen at the Unix socket ``path`` during the ``async with`` block, and have ``app`` answer
    the requests that other processes pass on to it. An asynchronous context manager; requests under
    way are cancelled at its end."""
    under_way: set[asyncio.Task[None]] = set()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_answer(app, reader, writer))
        under_way.add(task)
        try:
            await asyncio.wait([task])
        finally:
            under_way.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(answered, path)
    try:
        yield
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _send_on(writer: asyncio.StreamWriter, scope: Scope, receive: Receive) -> None:
    """Write a request's scope and what its client sends, until it is gone or has sent all."""
    with suppress(OSError):  # the process has ended, which its answer says
        await _write(writer, {name: scope[name] for name in _SCOPE if name in scope})
        while True:
            message = await receive()
            await _write(writer, message)
            if message["type"].endswith(".disconnect"):
                return


async def _answer(app: ASGIApp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    scope = await _read(reader)
    if scope is None:
        return
    scope[_PASSED_ON] = True
    kind = scope["type"]

    async def receive() -> Message:
        message: Message | None = await _read(reader)
        if message is None:
            message = {"type": f"{kind}.disconnect"}
            if kind == "websocket":
                message["code"] = 1006
        return message

    async def send(message: Message) -> None:
        try:
            await _write(writer, message)
        except OSError:
            if kind == "websocket":
                raise
            # As on a port: who reads an answer that nobody gets is told by ``receive``.

    try:
        await app(scope, receive, send)
    except Exception:
        _LOG.exception("a request that was passed on failed")
    # Whoever asked may be sending still, which would fail, and its reading with it.
    with suppress(OSError):
        writer.write_eof()
        while await reader.read(_REST_BYTES):
            pass


async def _write(writer: asyncio.StreamWriter, message: MutableMapping[str, Any]) -> None:
    name = next((name for name in _DATA if message.get(name) is not None), None)
    data = b"" if name is None else message[name]
    rest = {key: value for key, value in message.items() if key != name}
    head = json.dumps([name, rest], default=_from_bytes).encode()
    writer.write(_LENGTHS.pack(len(head), len(data)) + head)
    if data:
        writer.write(data)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Any:
    """The next message; None where none follows."""
    try:
        head_bytes, data_bytes = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        name, message = json.loads(await reader.readexactly(head_bytes), object_hook=_to_bytes)
        data = await reader.readexactly(data_bytes)
    except (asyncio.IncompleteReadError, OSError):
        return None
    if name is not None:
        message[name] = data
    return message


def _from_bytes(value: bytes) -> dict[str, str]:
    return {"bytes": value.decode("latin-1")}


def _to_bytes(value: dict[str, Any]) -> Any:
    if value.keys() == {"bytes"} and isinstance(value["bytes"], str):
        return value["bytes"].encode("latin-1")
    return value
