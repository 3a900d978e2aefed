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
from lipwire.web.passing import answering_passed_on

_LOG: Final = logging.getLogger("lipwire.web")
OTHER_PORT: Final = "choose another one with web.port or --web-port, 0 for any that is free"
_STARTED_WITHIN_S: Final = 30.0
_STOPPED_WITHIN_S: Final = 10.0
_MOST_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""Of a WebSocket; a larger one ends it."""
_LAG_EVERY_S: Final = 0.5


class WebServer(Closing):
    """Serves an app that is made in its event loop. A context manager: it listens inside."""

    def __init__(
        self,
        make_app: Callable[[], ASGIApp],
        *,
        host: str,
        port: int,
        on_stop: Callable[[], object] | None = None,
        among: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """``make_app`` is called in the event loop. ``port`` 0 is any free one. ``on_stop`` returns
        what is awaited there at the end. ``among`` is the Unix socket on which this process answers
        what others of the server pass on, with which it shares the port; None where there are
        none. ``certificate`` are the files of the server's certificate and its key, PEM; a change
        of them counts for the next connections. None: nothing is encrypted. Raises Unavailable
        where the address is taken, InvalidInput where it is no address of this machine or the files
        are no certificate."""
        self._make_app = make_app
        self._certificate = certificate
        self._encryption = None if certificate is None else _encryption(*certificate)
        self._certificate_seen = _state_of(certificate)
        self._among = among
        self._socket = _listening(host, port, shared=among is not None)
        self.port: Final[int] = self._socket.getsockname()[1]
        self._on_stop = on_stop
        self._started = threading.Event()
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.lag_s = 0.0
        """How late the event loop was when it was last looked at."""
        self._thread = threading.Thread(target=self._run, name="lipwire-web", daemon=True)
        self._thread.start()
        if not self._started.wait(_STARTED_WITHIN_S):
            raise Unavailable("the web server did not start")

    def close(self) -> None:
        """Answer nothing more, and end the thread."""
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
        except Exception:
            _LOG.exception("the web server failed")
        finally:
            self._started.set()

    async def _serve(self) -> None:
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
        )
        config.load()
        config.ssl = self._encryption
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
    """Return the address family that the server listens in: IPv6 where ``host`` is an IPv6 address,
    else IPv4."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listening(host: str, port: int, *, shared: bool) -> socket.socket:
    family = family_of(host)
    # asyncio sends small packets at once (TCP_NODELAY) only where it is told that this is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        option = socket.SO_REUSEPORT if shared else socket.SO_REUSEADDR
        listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(128)
    except OverflowError:
        listening.close()
        raise InvalidInput(f"port is {port}; allowed are 0 to 65535") from None
    except OSError as error:
        listening.close()
        hint = ""
        if error.errno == errno.EADDRINUSE:
            hint = f"; {OTHER_PORT}"
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}{hint}") from None
    return listening
