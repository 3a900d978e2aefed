"""How many connections a web server keeps, and how long one may ask nothing."""

import asyncio
import gc
import http.client
import logging
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send
from tests.support.trickling import trickling
from tests.support.waiting import WAIT_S, until
from tests.support.webparts import WebHouse
from websockets.sync.client import connect

from lipwire.security.devcerts import make_certificates
from lipwire.web.connections import Connections, SeldomWarnings
from lipwire.web.server import WebServer

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class App:
    """Answers each request, ``/wait`` when it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.go_on = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            self.asked.release()
            await asyncio.to_thread(self.go_on.wait, WAIT_S)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server's certificate, its key, and who has signed it."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder, ["localhost"], now=datetime.now(UTC))
    return folder


@contextmanager
def serving(
    app: App, most: int, ask_within_s: float = 60.0, certificates: Path | None = None
) -> Iterator[WebServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lipwire.web.server.Connections",
            lambda count: Connections(count, ask_within_s=ask_within_s),
        )
        pair = None
        if certificates is not None:
            pair = certificates / "server.crt", certificates / "server.key"
        with WebServer(
            lambda: app, host="127.0.0.1", port=0, most_connections=most, certificate=pair
        ) as server:
            yield server


def connected(server: WebServer, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WAIT_S))


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes it."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def status(server: WebServer, certificates: Path | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    if certificates is not None:
        trusted = ssl.create_default_context(cafile=certificates / "ca.crt")
        connection = http.client.HTTPSConnection(
            "localhost", server.port, timeout=WAIT_S, context=trusted
        )
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def test_connections_that_ask_nothing_keep_nobody_away(caplog: pytest.LogCaptureFixture) -> None:
    with serving(App(), most=20) as server, ExitStack() as stack:
        first = [connected(server, stack) for _ in range(20)]
        for connection in first[::2]:
            connection.sendall(HEAD)  # and never the rest
        with caplog.at_level(logging.WARNING, "lipwire.web"):
            assert status(server) == 204
        assert is_closed(first[0])  # the oldest
        later = [connected(server, stack) for _ in range(60)]
        assert status(server) == 204
        assert all(map(is_closed, first + later[:40]))
    told = [record.getMessage() for record in caplog.records if record.name == "lipwire.web"]
    assert len(told) == 1
    assert "there are 20 connections, the most allowed" in told[0]


@pytest.mark.slow
def test_connections_that_never_say_how_they_are_encrypted_keep_nobody_away(
    certificates: Path,
) -> None:
    with serving(App(), most=20, certificates=certificates) as server, ExitStack() as stack:
        silent = [connected(server, stack) for _ in range(30)]
        for connection in silent[::2]:
            connection.sendall(b"\x16\x03\x01\x02\x00\x01")  # how TLS begins
        assert status(server, certificates) == 204
        assert all(map(is_closed, silent[:10]))
    gc.collect()  # tasks that failed are told of then


@pytest.mark.slow
def test_a_client_that_goes_during_the_handshake_is_nothing_to_tell(
    certificates: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # what others have left
    caplog.clear()
    with serving(App(), most=20, certificates=certificates) as server:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01", HEAD):
            for reset in (False, True):
                with ExitStack() as stack:
                    connection = connected(server, stack)
                    connection.sendall(sent)
                    if reset:
                        linger = struct.pack("ii", 1, 0)
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert status(server, certificates) == 204
    gc.collect()
    ours = ("lipwire.web", "asyncio", "uvicorn.error")
    told = [each for each in caplog.records if each.name in ours]
    assert not [each for each in told if each.levelno >= logging.WARNING]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", HEAD], ids=repr)
def test_a_connection_that_is_never_encrypted_is_closed(certificates: Path, sent: bytes) -> None:
    with (
        serving(App(), 16, ask_within_s=0.5, certificates=certificates) as server,
        ExitStack() as stack,
    ):
        connection = connected(server, stack)
        connection.sendall(sent)
        while not is_closed(connection):
            pass  # what is wrong with it
        assert status(server, certificates) == 204


def test_what_is_asked_with_the_end_of_the_handshake_is_answered(certificates: Path) -> None:
    trusted = ssl.create_default_context(cafile=certificates / "ca.crt")
    with serving(App(), 16, certificates=certificates) as server, ExitStack() as stack:
        come, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusted.wrap_bio(come, sent, server_hostname="localhost")
        connection = connected(server, stack)
        done = False
        while not done:
            try:
                client.do_handshake()
                done = True
                client.write(HEAD + b"\r\n")
            except ssl.SSLWantReadError:
                pass
            connection.sendall(sent.read())
            if not done:
                come.write(connection.recv(65536))
        while True:
            try:
                assert client.read(100).startswith(b"HTTP/1.1 204")
                break
            except ssl.SSLWantReadError:
                come.write(connection.recv(65536))


def test_connections_that_are_answered_stay() -> None:
    app = App()
    with serving(app, most=16) as server, ExitStack() as stack:
        asking = [connected(server, stack) for _ in range(16)]
        for connection in asking:
            connection.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in asking:
            assert app.asked.acquire(timeout=WAIT_S)
        assert is_closed(connected(server, stack))
        app.go_on.set()
        for connection in asking:
            assert connection.recv(100).startswith(b"HTTP/1.1 204")
        assert status(server) == 204


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [b"", HEAD, HEAD + b"\r\n", HEAD + b"Content-Length: 9\r\n\r\n12"],
    ids=["nothing", "half a head", "one request", "one with half a body"],
)
def test_a_connection_that_asks_nothing_more_is_closed(sent: bytes) -> None:
    with serving(App(), most=16, ask_within_s=0.3) as server, ExitStack() as stack:
        connection = connected(server, stack)
        connection.sendall(sent)
        while not is_closed(connection):
            pass  # its answer


@pytest.mark.slow
def test_what_trickles_in_after_an_answer_keeps_no_connection() -> None:
    with serving(App(), most=16, ask_within_s=0.5) as server, ExitStack() as stack:
        connection = connected(server, stack)
        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        with trickling(connection):
            while not is_closed(connection):
                pass


def test_a_request_that_takes_longer_is_answered() -> None:
    app = App()
    with serving(app, most=16, ask_within_s=0.2) as server, ExitStack() as stack:
        connection = connected(server, stack)
        connection.sendall(b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert app.asked.acquire(timeout=WAIT_S)
        other = connected(server, stack)
        assert is_closed(other)  # its time is over, which began later
        app.go_on.set()
        assert connection.recv(100).startswith(b"HTTP/1.1 204")


def test_a_websocket_stays() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lipwire.web.server.Connections", lambda count: Connections(count, ask_within_s=0.2)
        )
        with WebHouse() as house, ExitStack() as stack:
            session = house.ask("POST", "/v1/sessions", {"avatar": "anna"}).json["id"]
            address = f"ws://127.0.0.1:{house.port}/v1/sessions/{session}/socket"
            origin = {"Origin": f"http://127.0.0.1:{house.port}"}
            with connect(address, additional_headers=origin) as opened:
                assert "session" in str(opened.recv(WAIT_S))
                idle = socket.create_connection(("127.0.0.1", house.port), WAIT_S)
                assert is_closed(stack.enter_context(idle))
                opened.send("nothing")
                until(lambda: "error" in str(opened.recv(WAIT_S)))


def record(level: int, text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", level, "", 0, text, args, None)


def test_the_same_warning_is_logged_once_a_minute() -> None:
    now = [100.0]
    seldom = SeldomWarnings(lambda: now[0])
    assert seldom.filter(record(logging.WARNING, "Invalid HTTP request received."))
    assert not seldom.filter(record(logging.WARNING, "Invalid HTTP request received."))
    assert seldom.filter(record(logging.WARNING, "Unsupported upgrade request."))
    for level, args in ((logging.ERROR, ()), (logging.INFO, ()), (logging.WARNING, ("one",))):
        for _ in range(2):
            assert seldom.filter(record(level, "%s" if args else "text", *args))
    now[0] += 60.0
    assert seldom.filter(record(logging.WARNING, "Invalid HTTP request received."))


def test_requests_that_are_none_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with serving(App(), most=100) as server, ExitStack() as stack:
        for _ in range(20):
            connection = connected(server, stack)
            connection.sendall(b"no request\r\n\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
    assert sum(each.name == "uvicorn.error" for each in caplog.records) <= 1
