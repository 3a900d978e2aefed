"""URLs from outside, asked of real servers on the loopback."""

import datetime
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.security import outgoing
from lipwire.security.devcerts import make_certificates
from lipwire.security.outgoing import GivenBy, RefusedUrlError, Times, fetched, requested, why_not

TIMES = Times(each_s=30.0, all_s=30.0)


@dataclass
class Server:
    port: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Paths, and what stood in ``Authorization``."""
    redirects: dict[str, str] = field(default_factory=dict)
    status: int = 302
    body: bytes = b"found"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def server() -> Iterator[Server]:
    known = Server()
    with serving(known):
        yield known


class serving:  # noqa: N801 - a context manager
    def __init__(self, known: Server, tls: ssl.SSLContext | None = None) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known.asked.append((self.path, self.headers.get("Authorization")))
                target = known.redirects.get(self.path)
                self.send_response(200 if target is None else known.status)
                if target is not None:
                    self.send_header("Location", target)
                self.send_header("Content-Length", str(len(known.body)))
                self.end_headers()
                self.wfile.write(known.body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        known.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def fetch(url: str, given_by: GivenBy = "operator", max_bytes: int = 1000) -> bytes:
    return fetched(url, given_by=given_by, times=TIMES, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("address", "operator", "others"),
    [
        ("93.184.215.14", None, None),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", None, None),
        ("127.0.0.1", None, "a private address"),
        ("::1", None, "a private address"),
        ("10.1.2.3", None, "a private address"),
        ("172.16.0.1", None, "a private address"),
        ("192.168.1.1", None, "a private address"),
        ("100.64.0.1", None, "a private address"),
        ("fd00::1", None, "a private address"),
        ("255.255.255.255", None, "a private address"),
        ("::ffff:127.0.0.1", None, "a private address"),
        ("::127.0.0.1", None, "a private address"),
        ("2002:7f00:1::", None, "a private address"),
        ("64:ff9b::a00:1", None, "a private address"),
        ("169.254.169.254", "a link-local address", "a link-local address"),
        ("::ffff:169.254.169.254", "a link-local address", "a link-local address"),
        ("64:ff9b::a9fe:a9fe", "a link-local address", "a link-local address"),
        ("fe80::1%1", "a link-local address", "a link-local address"),
        ("0.0.0.0", "an address of no single host", "an address of no single host"),
        ("::", "an address of no single host", "an address of no single host"),
        ("224.0.0.1", "an address of no single host", "an address of no single host"),
        ("ff02::1", "an address of no single host", "an address of no single host"),
    ],
)
def test_which_addresses_may_be_reached(
    address: str, operator: str | None, others: str | None
) -> None:
    assert why_not(address, "operator") == operator
    assert why_not(address, "others") == others


def test_the_operator_may_name_this_machine_and_nobody_else(server: Server) -> None:
    assert fetch(f"{server.url}/keys?a=1") == b"found"
    assert [path for path, _ in server.asked] == ["/keys?a=1"]
    with pytest.raises(RefusedUrlError, match=r"^127\.0\.0\.1 is a private address, which may not"):
        fetch(f"{server.url}/keys", "others")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost", "0.0.0.0"])
def test_a_redirect_may_not_lead_inside(server: Server, status: int, host: str) -> None:
    server.status = status
    server.redirects["/keys"] = f"http://{host}:{server.port}/secret"
    with pytest.raises(RefusedUrlError, match="which may not be reached from here"):
        fetch(f"{server.url}/keys")
    assert [path for path, _ in server.asked] == ["/keys"]


@pytest.mark.parametrize("target", ["/secret", "//127.0.0.1/secret"])
def test_a_redirect_to_the_server_itself_leads_inside_too(server: Server, target: str) -> None:
    server.redirects["/keys"] = target
    with pytest.raises(RefusedUrlError):
        fetch(f"{server.url}/keys")
    assert [path for path, _ in server.asked] == ["/keys"]


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://192.0.2.1/", "gopher://x/", "http://a:b@192.0.2.1/"]
)
def test_a_redirect_leads_to_http_alone(server: Server, target: str) -> None:
    server.redirects["/keys"] = target
    with pytest.raises(RefusedUrlError, match="the URL "):
        fetch(f"{server.url}/keys")


@pytest.fixture
def loopback_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "why_not", lambda address, given_by: None)


@pytest.mark.usefixtures("loopback_is_public")
def test_redirects_are_followed_without_what_was_sent(server: Server) -> None:
    server.redirects |= {"/keys": "/newer", "/newer": f"{server.url}/newest"}
    with requested(
        f"{server.url}/keys",
        given_by="operator",
        times=TIMES,
        headers={"Authorization": "Bearer secret"},
    ) as answer:
        assert answer.read() == b"found"
    assert server.asked == [("/keys", "Bearer secret"), ("/newer", None), ("/newest", None)]


@pytest.mark.usefixtures("loopback_is_public")
def test_redirects_have_an_end(server: Server) -> None:
    server.redirects["/keys"] = "/keys"
    with pytest.raises(RefusedUrlError, match="redirects more than 3 times"):
        fetch(f"{server.url}/keys")
    assert len(server.asked) == 4


@pytest.mark.usefixtures("loopback_is_public")
def test_a_post_follows_none(server: Server) -> None:
    server.redirects["/speech"] = "/elsewhere"
    with requested(
        f"{server.url}/speech", given_by="operator", times=TIMES, method="POST", body=b"text"
    ) as answer:
        assert answer.status == 302
    assert len(server.asked) == 1


def test_the_address_that_was_looked_up_is_the_one_that_is_asked(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to a public address first, and inside when it is looked up again."""
    answers = ["93.184.215.14", "127.0.0.1"]
    connected: list[str] = []

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        address = answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]

    def connect(self: socket.socket, place: tuple[str, int]) -> None:
        connected.append(place[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(ConnectionRefusedError):
        fetch(f"http://rebinding.example.org:{server.port}/keys", "others")
    assert connected == ["93.184.215.14"]
    with pytest.raises(RefusedUrlError, match=r"is 127\.0\.0\.1, a private address"):
        fetch(f"http://rebinding.example.org:{server.port}/keys", "others")
    assert connected == ["93.184.215.14"]
    assert not server.asked


def test_of_several_addresses_those_inside_are_left_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address in ("169.254.169.254", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert fetch(f"http://voice.internal:{server.port}/") == b"found"
    with pytest.raises(RefusedUrlError, match=r"voice\.internal is 127\.0\.0\.1, a private"):
        fetch(f"http://voice.internal:{server.port}/", "others")


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A resolver that waits for its own servers; the names that it was asked for."""
    asked: list[str] = []
    stop = threading.Event()

    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        stop.wait(WAIT_S)
        raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    lookups = threading.BoundedSemaphore(2)
    monkeypatch.setattr(outgoing, "_LOOKUPS", lookups)
    yield asked
    stop.set()
    for _ in range(2):  # until the threads have ended
        assert lookups.acquire(timeout=WAIT_S)


def test_looking_up_a_name_has_an_end(nobody_answers: list[str]) -> None:
    def ask(host: str) -> None:
        # With a clock that stands still only the waiting itself can end.
        soon = Times(each_s=0.01, all_s=0.01)
        fetched(f"http://{host}/", given_by="others", times=soon, max_bytes=9, clock=lambda: 1000.0)

    for number in range(2):
        with pytest.raises(
            TimeoutError, match=r"address of x\d\.example\.org is not found in time"
        ):
            ask(f"x{number}.example.org")
    with pytest.raises(TimeoutError, match="names are being looked up"):
        ask("x2.example.org")
    until(lambda: len(nobody_answers) == 2)


def test_a_name_that_there_is_not_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for _ in range(50):  # each of which leaves its place to the next
        with pytest.raises(socket.gaierror, match="no such name"):
            fetch("http://x.example.org/", "others")


def test_answers_have_a_largest_size(server: Server) -> None:
    server.body = bytes(1001)
    with pytest.raises(HTTPException, match="more than 1000 bytes"):
        fetch(server.url)
    server.body = bytes(1000)
    assert len(fetch(server.url)) == 1000


def test_a_server_that_gives_a_byte_now_and_then_is_left(server: Server) -> None:
    server.body = bytes(1 << 21)
    seconds = iter(range(1_000_000))
    with (
        requested(
            server.url,
            given_by="operator",
            times=Times(each_s=30.0, all_s=10.0),
            clock=lambda: float(next(seconds)),
        ) as answer,
        pytest.raises(TimeoutError),
    ):
        read_bit_by_bit(answer)


def read_bit_by_bit(answer: HTTPResponse) -> None:
    while answer.read1(1000):
        pass


@pytest.mark.parametrize("given_by", ["operator", "others"])
@pytest.mark.parametrize(
    "url", ["", "file:///etc/passwd", "http://", "http://[::1", "http://a b/", "http://x:0/"]
)
def test_what_is_no_url_is_refused(url: str, given_by: GivenBy) -> None:
    with pytest.raises(RefusedUrlError):
        fetch(url, given_by)


def test_encryption_is_not_left(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificates(tmp_path, ["localhost"], now=datetime.datetime.now(datetime.UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    make: Callable[[], ssl.SSLContext] = lambda: ssl.create_default_context(  # noqa: E731
        cafile=str(tmp_path / "ca.crt")
    )
    known = Server()
    with serving(known, context):
        url = f"https://localhost:{known.port}"
        with pytest.raises(ssl.SSLCertVerificationError):
            fetch(url)
        trusting = make()
        monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
        assert fetch(url) == b"found"
        known.redirects["/keys"] = f"{server.url}/keys"
        with pytest.raises(RefusedUrlError, match="localhost redirects to a URL without encrypt"):
            fetch(f"{url}/keys")
    assert not server.asked
