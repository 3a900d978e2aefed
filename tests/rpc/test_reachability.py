"""Servers that are not reached: on loopback, real sockets that refuse, are silent, or are something
else; and what gRPC says elsewhere."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import pytest
from tests.rpc.inferenceservers import Server, ask, backend_over, black_hole
from tests.support.waiting import WAIT_S, until

from lipwire.domain import Call, InvalidInput, LipwireError, Unavailable
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.credentials import ClientSecurity, ClientTls
from lipwire.rpc.reachability import cause_of, check_address
from lipwire.rpc.server.server import RpcServer, ServerOptions

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "no_proxy", "no_grpc_proxy")
LOOPBACK = "127.0.0.1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """An address where every connection is given to ``answer``, and then closed."""
    with socket.create_server((LOOPBACK, 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    answer(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{LOOPBACK}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as taken:  # bound, and not listening
        taken.bind((LOOPBACK, 0))
        yield f"{LOOPBACK}:{taken.getsockname()[1]}"


@contextmanager
def website() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"{LOOPBACK}:{server.server_port}"
        server.shutdown()
        thread.join()


def old_website(client: socket.socket) -> None:
    client.recv(1000)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def with_tls(client: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(OSError):  # noqa: PT011  whatever TLS makes of a client without it
        context.wrap_socket(client, server_side=True)


def closing(client: socket.socket) -> None:
    client.recv(1000)


@contextmanager
def inference() -> Iterator[str]:
    server = Server()
    yield server.url
    server.kill()


PLACES = {
    "refusing": (refusing, "connection refused; is it running, and is the port right?"),
    "website": (website, "what answers there does not speak gRPC; is the port right?"),
    "old website": (
        lambda: answering(old_website),
        "what answers there does not speak gRPC; is the port right?",
    ),
    "tls": (
        lambda: answering(with_tls),
        "the connection was closed at once; a server that wants TLS",
    ),
    "closing": (
        lambda: answering(closing),
        "the connection was closed at once; a server that wants",
    ),
    "inference": (
        inference,
        "what answers there does not know this call; is it the inference server? The port of the"
        " compositing server is 50052 unless",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_call_says_where_it_went_and_why_it_did_not_arrive(stack: ExitStack, place: str) -> None:
    opening, why = PLACES[place]
    address = stack.enter_context(opening())
    connection = stack.enter_context(CompositingConnection(address))
    with pytest.raises(LipwireError) as caught:
        connection.listing(WAIT_S)
    assert str(caught.value).startswith(
        f"the compositing server at {address} cannot be asked: {why}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("place", ["refusing", "tls", "closing"])
def test_waiting_ends_with_the_cause(stack: ExitStack, place: str) -> None:
    opening, why = PLACES[place]
    address = stack.enter_context(opening())
    connection = stack.enter_context(CompositingConnection(address))
    with pytest.raises(Unavailable) as caught:
        connection.wait_ready(0.5)
    assert str(caught.value).startswith(f"no compositing server at {address} within 0.5 s: {why}")


@pytest.mark.parametrize("place", ["website", "old website"])
def test_nobody_waits_for_what_is_no_grpc_server(stack: ExitStack, place: str) -> None:
    address = stack.enter_context(PLACES[place][0]())
    connection = stack.enter_context(CompositingConnection(address))
    with pytest.raises(Unavailable, match="does not speak gRPC"):
        connection.wait_ready(3600)


@pytest.mark.slow
def test_a_server_that_is_silent_is_named(stack: ExitStack) -> None:
    address = stack.enter_context(black_hole())
    connection = stack.enter_context(CompositingConnection(address))
    with pytest.raises(LipwireError) as caught:
        connection.listing(0.3)
    assert str(caught.value) == f"the compositing server at {address} did not answer in time"
    with pytest.raises(Unavailable, match=rf"^no compositing server at {address} within 0.3 s: "):
        connection.wait_ready(0.3)


@pytest.mark.slow
def test_a_server_that_comes_is_waited_for(stack: ExitStack) -> None:
    with refusing() as address:
        connection = stack.enter_context(CompositingConnection(address))
        with pytest.raises(Unavailable):
            connection.wait_ready(0.2)
    server = Server(int(address.rpartition(":")[2]))
    stack.callback(server.kill)
    connection.wait_ready(WAIT_S)


@pytest.mark.parametrize(
    ("details", "text"),
    [
        (
            "errors resolving nosuch.invalid:50052: [field:hostname lookup error:address lookup"
            " failed for nosuch.invalid:50052: Domain name not found]",
            "the name is not known; is it spelled as it should be?",
        ),
        (
            "DNS resolution failed for nosuch:1: C-ares status is not ARES_SUCCESS qtype=A"
            " name=nosuch is_balancer=0: Domain name not found",
            "the name is not known; is it spelled as it should be?",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.255.255.1:50052:"
            " Failed to connect to remote host: getsockopt(SO_ERROR): Network is unreachable",
            "the network does not lead there",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.7:50052:"
            " connection attempt timed out before receiving SETTINGS frame",
            "timed out while connecting; is the port right, is it a gRPC server, and does",
        ),
        (
            "failed to connect to all addresses; last error: INTERNAL: Trying to connect an http1.x"
            " server",
            "what answers there does not speak gRPC",
        ),
        (
            "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket"
            " closed",
            "the connection was closed at once; a server that wants TLS",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Custom"
            " verification check failed with error: UNAUTHENTICATED: Hostname Verification Check"
            " failed.",
            "the server's certificate is not accepted; is it made for this name",
        ),
        (
            "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.9:3128: HTTP"
            " proxy returned response code 403",
            "the proxy answered HTTP 403",
        ),
        (
            "failed to connect to all addresses; last error: FAILED_PRECONDITION: unix:/tmp/x:"
            " connect failed: addr: unix:/tmp/x error: No such file or directory",
            "there is no such socket",
        ),
        (
            "failed to connect to all addresses; last error: something\n new",
            "the connection was not made; gRPC says: failed to connect to all addresses; last"
            " error: something new",
        ),
    ],
)
def test_what_grpc_says_in_words(details: str, text: str) -> None:
    cause = cause_of(Failed(grpc.StatusCode.UNAVAILABLE, details), "compositing server")
    assert str(cause).startswith(text)


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "the server is stopping: Connection refused"),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed"),
        (grpc.StatusCode.INTERNAL, "failed to connect to all addresses; Connection refused"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (grpc.StatusCode.UNAVAILABLE, None),
    ],
)
def test_what_a_server_says_is_no_failure_to_reach_it(
    code: grpc.StatusCode, details: str | None
) -> None:
    assert cause_of(Failed(code, details), "compositing server") is None


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("http://localhost:50052", "leave out http://"),
        ("https://10.0.0.1:50052/", "leave out https://"),
        ("grpc://localhost", "leave out grpc://"),
        ("localhost", "the port is missing, as in localhost:50052"),
        ("10.0.0.1", "the port is missing, as in 10.0.0.1:50052"),
        ("[::1]", "the port is missing, as in [::1]:50052"),
        ("::1", "IPv6 goes into brackets, as in [::1]:50052"),
        ("::1:50052", "IPv6 goes into brackets, as in [::1]:50052"),
        (":50052", "the host is missing, as in localhost:50052"),
        ("localhost:", "the port is '', allowed are 1 to 65535"),
        ("localhost:0", "the port is '0', allowed are 1 to 65535"),
        ("localhost:65536", "the port is '65536', allowed are 1 to 65535"),
        ("localhost:http", "the port is 'http', allowed are 1 to 65535"),
        ("localhost:50052/models", "leave out /models"),
        (" localhost:50052", "it may not be empty or hold spaces"),
        ("", "it may not be empty or hold spaces"),
    ],
)
def test_an_address_that_is_none_is_refused_with_a_hint(address: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        CompositingConnection(address)
    assert str(caught.value) == (
        f"compositing server address is {address!r}, wanted is HOST:PORT without a scheme: {hint}"
    )


@pytest.mark.parametrize(
    "address",
    [
        "localhost:1",
        "10.0.0.1:50052",
        "[::1]:50052",
        "[fe80::1%eth0]:65535",
        "gpu_1.internal:1",
        "unix:/run/lipwire",
        "dns:///gpu1:50051",
        "ipv4:10.0.0.1:1,10.0.0.2:1",
    ],
)
def test_an_address_that_is_one_is_taken(address: str) -> None:
    check_address(address, "inference server")


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy for CONNECT (RFC 9110, 9.3.6): its URL, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            host, _, port = self.path.rpartition(":")
            with socket.create_connection((host, int(port))) as there:
                self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=copy, args=(there, self.connection))
                back.start()
                copy(self.connection, there)
                back.join()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_port}", asked
        server.shutdown()
        thread.join()


def copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has gone, which ends it


@pytest.mark.parametrize("case", [str.lower, str.upper])
@pytest.mark.parametrize("name", VARIABLES[:4])
def test_variables_of_proxies_do_not_count(
    server: RpcServer,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    case: Callable[[str], str],
    stack: ExitStack,
) -> None:
    monkeypatch.setenv(case(name), f"http://{stack.enter_context(refusing())}")
    with CompositingConnection(f"localhost:{server.port}") as connection:
        connection.wait_ready(WAIT_S)
        assert connection.health(WAIT_S).healthy
    inference = Server()
    stack.callback(inference.kill)
    with backend_over(inference) as backend:
        ask(backend)


@pytest.mark.parametrize("name", VARIABLES[:3])
def test_a_proxy_is_used_where_that_is_asked_for(
    server: RpcServer, monkeypatch: pytest.MonkeyPatch, name: str, stack: ExitStack
) -> None:
    url, asked = stack.enter_context(proxy())
    monkeypatch.setenv(name, url)
    address = f"{LOOPBACK}:{server.port}"
    with CompositingConnection(address, use_proxy=True) as connection:
        assert connection.health(WAIT_S).healthy
    assert asked == [address]
    inference = Server()
    stack.callback(inference.kill)
    with backend_over(inference, use_proxy=True) as backend:
        ask(backend)
    assert set(asked) == {address, inference.url}
    monkeypatch.setenv("no_proxy", LOOPBACK)
    asked.clear()
    with CompositingConnection(address, use_proxy=True) as connection:
        assert connection.health(WAIT_S).healthy
    assert asked == []


def test_a_proxy_that_fails_is_named_without_its_password(
    server: RpcServer, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    nowhere = stack.enter_context(refusing())
    monkeypatch.setenv("https_proxy", f"http://me:secret@{nowhere}")
    address = f"{LOOPBACK}:{server.port}"
    with (
        CompositingConnection(address, use_proxy=True) as connection,
        pytest.raises(Unavailable) as caught,
    ):
        connection.health(WAIT_S)
    assert str(caught.value).startswith(
        f"the compositing server at {address} cannot be asked: connection refused; "
    )
    assert "https_proxy is in force: the proxy may be the cause" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_a_proxy_that_could_help_is_mentioned(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://10.0.0.9:3128")
    unknown = Failed(grpc.StatusCode.UNAVAILABLE, "errors resolving gpu1:50051: [lookup error]")
    cause = cause_of(unknown, "inference server")
    assert cause is not None
    assert cause.hint.endswith(f"{name} is set, and counts only with use_proxy.")
    refused = Failed(
        grpc.StatusCode.UNAVAILABLE,
        "failed to connect to all addresses; last error: Connection refused",
    )
    assert name not in str(cause_of(refused, "inference server"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["refusing", "website", "tls", "closing"])
def test_one_inference_server_that_is_not_reached_is_logged_once(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    opening, why = PLACES[place]
    address = stack.enter_context(opening())
    backend = stack.enter_context(backend_over(address))
    caplog.set_level("INFO")
    for _ in range(3):
        health = backend.health(call=Call(WAIT_S))
        assert health.detail.startswith(
            f"{address}: no inference server answers: {why.split(';')[0]}"
        )
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"inference server {address} is out: {why}")
    with pytest.raises(Unavailable) as caught:
        ask(backend)
    assert str(caught.value) == f"no inference server answers: {why.split(';')[0]}"


def test_it_is_logged_that_an_inference_server_is_back(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with refusing() as address:
        backend = stack.enter_context(backend_over(address))
        assert not backend.health(call=Call(WAIT_S)).healthy
    server = Server(int(address.rpartition(":")[2]))
    stack.callback(server.kill)
    until(lambda: backend.health(call=Call(WAIT_S)).healthy)
    assert caplog.records[-1].getMessage() == f"inference server {address} is back"


def test_a_client_with_tls_before_a_server_without(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server()
    stack.callback(server.kill)
    tls = ClientSecurity(ClientTls())
    backend = stack.enter_context(backend_over(server, security=tls))
    assert "what answers there does not speak TLS" in backend.health(call=Call(WAIT_S)).detail
    assert "does not speak TLS; connect without credentials" in caplog.text


def test_a_compositing_server_asked_for_inference_is_told(stack: ExitStack) -> None:
    server = stack.enter_context(RpcServer([], ServerOptions(LOOPBACK)))
    backend = stack.enter_context(backend_over(f"{LOOPBACK}:{server.port}"))
    detail = backend.health(call=Call(WAIT_S)).detail
    assert "what answers there does not know this call" in detail
