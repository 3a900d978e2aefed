"""Health checks and watches: each change reaches who watches, and no watch holds up anybody."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.support.http2 import grpc_call, takes_nothing
from tests.support.waiting import WAIT_S, until

from lipwire.rpc.server import health as health_module
from lipwire.rpc.server import server as server_module
from lipwire.rpc.server.health import HealthServicer
from lipwire.rpc.server.server import RpcServer, ServerOptions

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that asks every moment whether it is healthy, and ends calls at once."""
    monkeypatch.setattr(server_module, "_HEALTH_EVERY_S", 0.02)
    monkeypatch.setattr(server_module, "_STOP_S", 0.02)


@contextmanager
def stub(port: int) -> Iterator[Any]:
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def watch(calls: Any, service: str = "") -> Any:
    """A call of Watch that ends within the tests' time."""
    return calls.Watch(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)


def status(calls: Any, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(calls.Check(request, timeout=WAIT_S).status)


def test_who_watches_is_told_of_each_change() -> None:
    healthy = [True]
    with (
        RpcServer([], ServerOptions(host="127.0.0.1"), healthy=lambda: healthy[0]) as server,
        stub(server.port) as calls,
    ):
        watching = watch(calls)
        for _ in range(2):
            assert next(watching).status == SERVING
            healthy[0] = False
            assert next(watching).status == NOT_SERVING
            healthy[0] = True
        assert next(watching).status == SERVING
        unknown = watch(calls, "no.such.Service")
        assert next(unknown).status == UNKNOWN


def test_who_watches_is_told_that_the_server_drains() -> None:
    with RpcServer([], ServerOptions(host="127.0.0.1")) as server, stub(server.port) as calls:
        watching = watch(calls)
        assert next(watching).status == SERVING
        server.drain(0.0)
        assert next(watching).status == NOT_SERVING
        with pytest.raises(grpc.RpcError):
            next(watching)


@pytest.mark.slow
def test_watches_may_end_while_others_are_told_of_changes() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RpcServer([], ServerOptions(host="127.0.0.1")))
        calls = stack.enter_context(stub(server.port))
        over = threading.Event()

        def change() -> None:
            while not over.is_set():
                for each in (NOT_SERVING, SERVING):
                    server._health.set("", each)

        changing = threading.Thread(target=change)
        stack.callback(changing.join)
        stack.callback(over.set)
        changing.start()
        for _ in range(10):
            watching = [watch(calls) for _ in range(30)]
            for each in watching:
                next(each)
            for each in watching:
                each.cancel()
            assert status(calls) in (SERVING, NOT_SERVING)


def test_watches_that_take_nothing_hold_up_nobody() -> None:
    with ExitStack() as stack:
        healthy = [True]
        options = ServerOptions(host="127.0.0.1", max_requests=1)
        server = stack.enter_context(RpcServer([], options, healthy=lambda: healthy[0]))
        for _ in range(4):  # connections, of as many calls as one may have
            opened = stack.enter_context(takes_nothing(server.port, WAIT_S))
            for call in range(60):
                request = health_pb2.HealthCheckRequest().SerializeToString()
                opened.sendall(grpc_call(WATCH, request, stream=2 * call + 1))
        calls = stack.enter_context(stub(server.port))
        assert status(calls) == SERVING
        watching = watch(calls)
        assert next(watching).status == SERVING
        healthy[0] = False
        assert next(watching).status == NOT_SERVING


class Calls:
    """The two ends of calls of Watch: what was sent, and when."""

    def __init__(self) -> None:
        self.taken = threading.Event()
        self.ended: list[Any] = []
        self.sent: list[int] = []
        self.cancelled = False

    def send(self, answer: Any) -> None:
        self.taken.wait()
        self.sent.append(answer.status)

    def add_callback(self, call: Any) -> bool:
        self.ended.append(call)
        return True

    def cancel(self) -> None:
        self.cancelled = True
        self.taken.set()


def test_a_client_that_takes_nothing_is_left_and_told_the_last_status_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    health = HealthServicer(lambda: True)
    slow, gone = Calls(), Calls()
    told = threading.Thread(
        target=health.Watch, args=(health_pb2.HealthCheckRequest(), slow, slow.send)
    )
    told.start()
    until(lambda: slow.ended)
    for each in (NOT_SERVING, SERVING, NOT_SERVING):
        health.set("", each)
    slow.taken.set()
    told.join()
    assert slow.sent == [SERVING, NOT_SERVING]
    monkeypatch.setattr(health_module, "_TAKES_S", 0.05)
    health.Watch(health_pb2.HealthCheckRequest(), gone, gone.send)  # returns by the limit of time
    assert gone.cancelled
    for each in (*slow.ended, *gone.ended):
        each()
    health.set("", SERVING)
    health.drain()
    assert (slow.sent, gone.sent) == ([SERVING, NOT_SERVING], [NOT_SERVING])


def test_changes_do_not_pile_up_behind_a_client_that_takes_nothing() -> None:
    health = HealthServicer(lambda: True)
    slow = Calls()
    told = threading.Thread(
        target=health.Watch, args=(health_pb2.HealthCheckRequest(), slow, slow.send)
    )
    told.start()
    until(lambda: slow.ended)
    for _ in range(1000):
        health.set("", NOT_SERVING)
        health.set("", SERVING)
    assert health._threads._work_queue.qsize() == 0  # it has one thread that tells it, its own
    health.set("", NOT_SERVING)
    slow.taken.set()
    told.join()
    assert slow.sent == [SERVING, NOT_SERVING]
    for change in (SERVING, NOT_SERVING):
        health.set("", change)
        until(lambda: slow.sent[-1] == change)  # noqa: B023  # within the turn
    health.drain()
