"""Connections of a web server's clients: how many there are at a time, how long one may stay that
asks nothing, and how often the log has what is wrong with their requests."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

_LOG: Final = logging.getLogger("lipwire.web")
ASK_WITHIN_S: Final = 15.0
"""Within which a request's head has to be there, from when the connection was made or from the end
of the answer before. uvicorn alone waits for ever for the rest of one."""
_TELL_EVERY_S: Final = 60.0
_MOST_TEXTS: Final = 100


class SeldomWarnings(logging.Filter):
    """A filter of loggers that lets each warning without arguments through once a minute: uvicorn
    warns of each malformed request in the same words, and whoever sends them would fill the disk
    with its log."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` is in seconds."""
        super().__init__()
        self._clock = clock
        self._told_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether ``record`` is to be logged: False for a warning without arguments whose
        text was logged within the last minute."""
        if record.levelno != logging.WARNING or record.args or record.exc_info:
            return True
        now, text = self._clock(), str(record.msg)
        if now - self._told_s.get(text, -_TELL_EVERY_S) < _TELL_EVERY_S:
            return False
        if len(self._told_s) >= _MOST_TEXTS:
            self._told_s.clear()
        self._told_s[text] = now
        return True


Protocol = Any
"""One of uvicorn's for HTTP, by h11 or httptools: one object for each connection."""


class Connections:
    """The connections of one web server: how many there are at a time, and for how long each may
    stay open without a request. Used in its event loop."""

    def __init__(
        self,
        most: int,
        *,
        ask_within_s: float = ASK_WITHIN_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``most`` are kept at a time. Where there is one more, that which has asked nothing for
        longest makes room, or the new one itself where all others are being answered: who holds
        connections without asking keeps nobody else away. ``ask_within_s`` is how long one may ask
        nothing. ``clock`` is in seconds."""
        self._most = most
        self._ask_within_s = ask_within_s
        self._clock = clock
        self._asking_nothing: dict[Protocol, asyncio.TimerHandle] = {}
        self._agreeing: set[_Handshake] = set()
        self._dropped = 0
        self._told_s = -_TELL_EVERY_S

    def protocol(self, base: Any, encryption: ssl.SSLContext | None = None) -> Any:
        """Return a factory of asyncio protocols that makes ``base``, uvicorn's class for HTTP
        connections, with the limits of this object; asyncio calls the factory once for each
        connection. With ``encryption`` each connection agrees on TLS first, by that context; the
        listening socket must then have no TLS of its own. A connection counts from when it is made,
        not from when it is encrypted."""
        limits = self

        class Limited(base):  # type: ignore[misc]
            def connection_made(self, transport: asyncio.Transport) -> None:
                super().connection_made(transport)
                limits._came(self)

            def data_received(self, data: bytes) -> None:
                super().data_received(data)
                if _is_answered(self):
                    limits._leave(self)

            def on_response_complete(self) -> None:
                super().on_response_complete()
                if not _is_answered(self):
                    limits._wait(self)

            def connection_lost(self, exc: Exception | None) -> None:
                limits._leave(self)
                super().connection_lost(exc)

        if encryption is None:
            return Limited

        def encrypted(**arguments: Any) -> _Handshake:
            return _Handshake(self, encryption, Limited(**arguments))

        return encrypted

    def _came(self, connection: Protocol) -> None:
        self._wait(connection)
        made = len(connection.connections) + len(self._agreeing)  # with WebSockets
        if made > self._most:
            self._drop(next(iter(self._asking_nothing)))
            self._dropped += 1
            self._tell()

    def _wait(self, connection: Protocol) -> None:
        """``connection`` asks nothing from now on."""
        if connection.transport.is_closing():
            return
        self._leave(connection)
        loop = asyncio.get_running_loop()
        self._asking_nothing[connection] = loop.call_later(
            self._ask_within_s, self._drop, connection
        )

    def _leave(self, connection: Protocol) -> None:
        """``connection`` has asked, or is gone."""
        timer = self._asking_nothing.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _drop(self, connection: Protocol) -> None:
        self._leave(connection)
        connection.transport.abort()

    def _tell(self) -> None:
        now = self._clock()
        if now - self._told_s >= _TELL_EVERY_S:
            _LOG.warning(
                "there are %d connections, the most allowed: %d that asked nothing were closed"
                " (web.max_connections)",
                self._most,
                self._dropped,
            )
            self._told_s, self._dropped = now, 0


class _Handshake(asyncio.Protocol):
    """A connection of which it is being agreed how it is encrypted. It asks nothing for as long."""

    def __init__(self, limits: Connections, encryption: ssl.SSLContext, then: Protocol) -> None:
        """``then`` is uvicorn's protocol, which has the connection afterwards."""
        self.transport: Any = None
        self.connections: Final = then.connections
        self._limits = limits
        self._encryption = encryption
        self._then = then
        self._early: list[Callable[[], object]] = []
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._limits._agreeing.add(self)
        self._limits._came(self)
        self._task = asyncio.ensure_future(self._agree())

    # What comes with the end of the handshake, before uvicorn's protocol has the connection.

    def data_received(self, data: bytes) -> None:
        self._early.append(lambda: self._then.data_received(data))

    def eof_received(self) -> None:
        self._early.append(self._then.eof_received)

    def connection_lost(self, exc: Exception | None) -> None:
        self._early.append(lambda: self._then.connection_lost(exc))

    async def _agree(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            encrypted = await loop.start_tls(
                self.transport, self, self._encryption, server_side=True
            )
        except OSError:  # its kinds are those of ssl, too
            return
        finally:
            self._limits._agreeing.discard(self)
            self._limits._leave(self)
        if encrypted is None:  # it was closed meanwhile
            return
        encrypted.set_protocol(self._then)
        self._then.connection_made(encrypted)
        for come in self._early:
            come()


def _is_answered(connection: Protocol) -> bool:
    """Whether a request of it is being answered, or it has become a WebSocket."""
    if connection.transport.get_protocol() is not connection:
        return True
    return connection.cycle is not None and not connection.cycle.response_complete
