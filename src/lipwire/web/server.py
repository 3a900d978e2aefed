"""The web server: an event loop in a thread of its own."""

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from lipwire.domain import InvalidInput, Unavailable
from lipwire.domain.closing import Closing
from lipwire.web.connections import Connections, SeldomWarnings
from lipwire.web.passing import answering_passed_on

_LOG: Final = logging.getLogger("lipwire.web")
_UVICORN_LOG: Final = logging.getLogger("uvicorn.error")
_SELDOM: Final = SeldomWarnings()
OTHER_PORT: Final = "choose another one with web.port or --web-port, 0 for any that is free"
_OTHER_PORTS: Final = {
    "web": OTHER_PORT,
    "metrics": "choose another one with metrics.port, 0 for any that is free",
}
_STARTED_WITHIN_S: Final = 30.0
_STOPPED_WITHIN_S: Final = 10.0
_MOST_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of a WebSocket; a larger one ends it."""
MOST_CONNECTIONS: Final = 1000
_WAITING_CONNECTIONS: Final = 128
"""That the system has accepted. So many are taken at once, before others are read on."""
_LAG_EVERY_S: Final = 0.5
_ANSWERS_WITHIN_S: Final = 5.0


class WebServer(Closing):
    """Serves an ASGI app over HTTP in a thread with an event loop of its own. A context manager: it
    listens from when it is made until it is closed."""

    def __init__(
        self,
        make_app: Callable[[], ASGIApp],
        *,
        host: str,
        port: int,
        on_stop: Callable[[], object] | None = None,
        among: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        name: str = "web",
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        """``make_app()`` returns the app; it is called in the event loop. ``host`` is the address
        to listen at, ``port`` 0 is any free one. ``on_stop()`` is called in the loop at the end; a
        coroutine that it returns is awaited. ``among`` is the path of a Unix socket, on which this
        process answers requests that other processes of the server pass on to it, and the port is
        then shared with them; None where this process is the only one. ``certificate`` are the
        files of the server's certificate and its key, PEM, which are read again when they change;
        None: nothing is encrypted. ``name`` is the server's name in messages and of its thread,
        "web" or "metrics". ``most_connections`` are kept at a time. Raises Unavailable where it
        cannot listen at the address (it is taken, for example), and InvalidInput for a port that is
        none and for files that are no certificate and its key. What ``make_app`` raises is
        passed on."""
        self._make_app = make_app
        self._name = name
        self._connections = Connections(most_connections)
        _UVICORN_LOG.addFilter(_SELDOM)  # once, however many servers there are
        self._certificate = certificate
        self._encryption = None if certificate is None else _encryption(*certificate)
        self._certificate_seen = _state_of(certificate)
        self._among = among
        self._socket = _listening(host, port, shared=among is not None, name=name)
        self.port: Final[int] = self._socket.getsockname()[1]
        self._on_stop = on_stop
        self._started = threading.Event()
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lag_s = 0.0
        """How late the event loop was when it was last looked at."""
        self._failures: list[Exception] = []
        """Why it did not start, if it did not."""
        self._thread = threading.Thread(target=self._run, name=f"lipwire-{name}", daemon=True)
        self._thread.start()
        if not self._started.wait(_STARTED_WITHIN_S):
            self.close()
            raise Unavailable(f"the {name} server did not start")
        if self._failures:
            self._socket.close()
            raise self._failures[0]

    def answers(self, timeout_s: float = _ANSWERS_WITHIN_S) -> bool:
        """Return whether the event loop of the server runs a function that it is given within
        ``timeout_s`` seconds; waits so long at most. Returns True at once where the server is being
        closed. For any thread but that of the loop."""
        loop, server = self._loop, self._server
        if loop is None or (server is not None and server.should_exit):
            return True
        if not self._thread.is_alive():
            return False
        turned = threading.Event()
        try:
            loop.call_soon_threadsafe(turned.set)
        except RuntimeError:  # the loop has just been closed
            return False
        return turned.wait(timeout_s)

    def close(self) -> None:
        """Accept no more requests, and end the event loop and its thread, waiting some seconds for
        both; requests that last longer are cut off."""
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(_STOPPED_WITHIN_S)
        if self._thread.is_alive() and self._server is not None:
            self._server.force_exit = True
            self._thread.join(_STOPPED_WITHIN_S)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._started.is_set():
                _LOG.exception("the %s server failed", self._name)
            else:
                self._failures.append(error)
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = self._make_app()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=2,
            ws_max_size=_MOST_MESSAGE_BYTES,
            ws_max_queue=8,
            backlog=_WAITING_CONNECTIONS,
        )
        config.load()
        config.http_protocol_class = self._connections.protocol(
            config.http_protocol_class, self._encryption
        )
        self._server = server = uvicorn.Server(config)
        among = nullcontext() if self._among is None else answering_passed_on(app, self._among)
        watching = asyncio.ensure_future(self._watch_lag())
        try:
            async with among:
                self._started.set()
                await server.serve([self._socket])
        finally:
            watching.cancel()
            if self._on_stop is not None:
                stopping = self._on_stop()
                if asyncio.iscoroutine(stopping):
                    await stopping

    async def _watch_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_LAG_EVERY_S)
            self.lag_s = max(0.0, loop.time() - before - _LAG_EVERY_S)
            self._renew_certificate()

    def _renew_certificate(self) -> None:
        """Use the files of the certificate where they have changed, and are one."""
        if self._certificate is None or self._encryption is None:
            return
        state = _state_of(self._certificate)
        if state == self._certificate_seen:
            return
        try:
            _encryption(*self._certificate)  # whether they belong together
            self._encryption.load_cert_chain(*self._certificate)
        except InvalidInput:
            return  # half of them is written: looked at again
        self._certificate_seen = state


def _encryption(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl's errors are some, too
        raise InvalidInput(
            f"server.tls.cert {cert} and server.tls.key {key} are no certificate and its key:"
            f" {error.strerror or error}"
        ) from None
    return context


def _state_of(paths: tuple[Path, ...] | None) -> list[tuple[int, int, int]]:
    found = []
    for path in paths or ():
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return found


def family_of(host: str) -> socket.AddressFamily:
    """Return the address family in which a server for ``host`` listens: IPv6 where ``host`` is an
    IPv6 address, else IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listening(host: str, port: int, *, shared: bool, name: str) -> socket.socket:
    family = family_of(host)
    # asyncio sends small packets at once (TCP_NODELAY) only where it is told that this is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        option = socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR
        listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(_WAITING_CONNECTIONS)
    except OverflowError:
        listening.close()
        raise InvalidInput(f"port is {port}; allowed are 0 to 65535") from None
    except OSError as error:
        listening.close()
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = f"; {_OTHER_PORTS.get(name, 'choose another one')}"
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}{hint}") from None
    return listening
