"""Options of gRPC against the installed core, and real connections that they are for."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.http2 import GOAWAY, PING, PREFACE, SETTINGS, frame
from tests.support.waiting import WAIT_S

from lipwire.rpc.server import server
from lipwire.rpc.server.server import RpcServer, ServerOptions, Service
from lipwire.rpc.transport import UNLIMITED_BYTES, Option, open_channel, server_options

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"""["'](grpc\.[a-z0-9_.]+)["']""")
SOURCES = [
    path
    for folder in ("src", "benchmarks", "examples", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".sh", ".md") and "generated" not in path.parts
]


CORE = b"".join(path.read_bytes() for path in Path(grpc.__file__).parent.glob("_cython/cygrpc.*"))
NAMES = sorted({name for path in SOURCES for name in NAME.findall(path.read_text("utf-8"))})


def known(name: str) -> bool:
    """Whether gRPC's compiled core has an option of this name."""
    return name.encode() + b"\0" in CORE


@pytest.mark.parametrize("name", NAMES)
def test_grpc_knows_every_option_that_is_set(name: str) -> None:
    assert known(name)


def test_a_name_that_grpc_does_not_know_is_told() -> None:
    assert "grpc.keepalive_time_ms" in NAMES
    assert not known("grpc.http2.min_recv_ping_interval_without_data" + "_ms")
    assert not known("grpc.keepalive_time")


def test_channels_and_servers_are_made_where_their_options_are() -> None:
    made = re.compile(r"\bgrpc\.(?:aio\.)?(insecure_channel|secure_channel|server)\(")
    found = {
        (path.name, call)
        for path in SOURCES
        if path.suffix == ".py"
        for call in made.findall(path.read_text("utf-8"))
    }
    assert found == {
        ("transport.py", "insecure_channel"),
        ("transport.py", "secure_channel"),
        ("server.py", "server"),
        ("serve.py", "server"),  # the bare echo that a benchmark compares with
    }


class Slow(grpc.GenericRpcHandler):
    """A service with one method, which takes as many seconds as the request says."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.ended.wait(float(request))
            return b"done"

        if handler_call_details.method == "/slow.Slow/Wait":
            return grpc.unary_unary_rpc_method_handler(wait)
        return None


@contextmanager
def slow_server() -> Iterator[int]:
    """The port of a server with ``Slow``."""
    slow = Slow()
    service = Service("slow.Slow", lambda server: server.add_generic_rpc_handlers((slow,)))
    with RpcServer([service], ServerOptions(host="127.0.0.1")) as server:
        yield server.port
        slow.ended.set()


def left_ready(port: int, ping_every_s: float, for_s: float) -> list[grpc.ChannelConnectivity]:
    """The states, other than READY, that two connections with pings went to in ``for_s``: one is
    idle, the other has a call in hand for as long. Raises where the call fails."""
    pings = [
        ("grpc.keepalive_time_ms", round(ping_every_s * 1000)),
        ("grpc.keepalive_timeout_ms", round(WAIT_S * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    left: list[grpc.ChannelConnectivity] = []

    def changed(state: grpc.ChannelConnectivity) -> None:
        if state is not grpc.ChannelConnectivity.READY:
            left.append(state)

    with ExitStack() as stack:
        address = f"127.0.0.1:{port}"
        for _ in range(2):
            channel = stack.enter_context(
                open_channel(address, max_message_bytes=UNLIMITED_BYTES, options=pings)
            )
            grpc.channel_ready_future(channel).result(WAIT_S)
            channel.subscribe(changed)
        call: Any = channel.unary_unary("/slow.Slow/Wait")
        assert call(str(for_s).encode(), timeout=for_s + WAIT_S) == b"done"
        return list(left)


def answers_to_pings(port: int, every_s: float, count: int) -> list[int]:
    """The kinds of frames that a server sends to a client that only pings, until it has answered
    ``count`` pings or ended the connection. gRPC's own client pings once a second at most."""
    kinds: list[int] = []
    with (
        socket.create_connection(("127.0.0.1", port), WAIT_S) as client,
        client.makefile("rb") as said,
    ):
        client.sendall(PREFACE + frame(SETTINGS))
        for sent in range(1, count + 1):
            client.sendall(frame(PING, bytes(8)))
            while kinds.count(PING) < sent:
                head = said.read(9)
                said.read(int.from_bytes(head[:3], "big"))
                kinds.append(head[3])
                if head[3] == GOAWAY:
                    return kinds
            time.sleep(every_s)  # gRPC's own timers decide what comes too often
    return kinds


@pytest.mark.slow
def test_pings_a_hundred_times_as_fast_do_not_end_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings every 10 s and what the server allows, a hundred times as fast."""

    def hastened(**arguments: Any) -> tuple[Option, ...]:
        return tuple(
            (name, int(value) // 100 if "ping_interval" in name else value)
            for name, value in server_options(**arguments)
        )

    monkeypatch.setattr(server, "server_options", hastened)
    with slow_server() as port:
        kinds = answers_to_pings(port, 0.1, 12)
    assert kinds.count(PING) == 12
    assert GOAWAY not in kinds


def test_a_flood_of_pings_ends_a_connection() -> None:
    with slow_server() as port:
        assert GOAWAY in answers_to_pings(port, 0.0, 12)


@pytest.mark.slow
def test_who_connects_and_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 15 s, fifty times as fast."""

    def hastened(**arguments: Any) -> tuple[Option, ...]:
        return tuple(
            (name, int(value) // 50 if "handshake" in name else value)
            for name, value in server_options(**arguments)
        )

    monkeypatch.setattr(server, "server_options", hastened)
    with slow_server() as port:
        with socket.create_connection(("127.0.0.1", port), WAIT_S) as silent:
            while silent.recv(4096):  # what the server would like of HTTP/2
                pass
        assert answers_to_pings(port, 0.2, 4).count(PING) == 4, "who speaks may stay"


@pytest.mark.slow
def test_pings_every_10_s_do_not_end_a_connection() -> None:
    """The third one did, with gRPC's own limits."""
    with slow_server() as port:
        assert left_ready(port, 10.0, 45.0) == []
