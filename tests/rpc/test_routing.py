"""What load balancers can tell of a call without reading its messages."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tests.rpc.conftest import ServeLive
from tests.rpc.liveserver import Raw
from tests.support.waiting import WAIT_S, until

from lipwire.domain import LipwireError, NotFound
from lipwire.rpc.connection import CompositingConnection
from lipwire.rpc.conversing import AvatarConnection
from lipwire.rpc.generated.compositing_pb2 import CompositeBatchRequest
from lipwire.rpc.generated.lipwire.v1.avatar_pb2 import StartSession
from lipwire.rpc.routing import routing


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("anna", "anna"),
        ("Zoë 100%/x", "Zo%C3%AB%20100%25/x"),
        ("a\r\nx-session-id: b", "a%0D%0Ax-session-id:%20b"),
        ("n" * 255, "n" * 255),
    ],
)
def test_names_are_told_as_headers_may_hold_them(name: str, told: str) -> None:
    assert routing(model_id=name) == (("x-model-id", told),)
    assert routing(session_id=name) == (("x-session-id", told),)


@pytest.mark.parametrize("name", ["", "n" * 256, "\ud800"])
def test_what_no_header_holds_is_left_out(name: str) -> None:
    assert routing(model_id=name, session_id="b") == (("x-session-id", "b"),)


TOLD = ("x-model-id", "x-session-id")


class Refusing(grpc.GenericRpcHandler):
    """Refuses all calls, and keeps what a balancer sees of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> None:
        metadata: dict[str, Any] = dict(details.invocation_metadata)
        told = {str(name): metadata[name] for name in TOLD if name in metadata}
        self.seen.append((details.method.rpartition("/")[2], told))


@pytest.fixture
def refusing() -> Iterator[tuple[Refusing, str]]:
    handler = Refusing()
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[handler])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield handler, f"127.0.0.1:{port}"
        server.stop(0).wait()


def test_clients_say_which_avatar_and_which_session(refusing: tuple[Refusing, str]) -> None:
    handler, address = refusing
    with CompositingConnection(address) as client, AvatarConnection(address) as live:
        asks: list[Callable[[], object]] = [
            lambda: client.composite(CompositeBatchRequest(model_id="anna"), WAIT_S),
            lambda: client.load("anna", WAIT_S),
            lambda: client.models(WAIT_S),
            lambda: live.converse("anna"),
            lambda: live.resume("the session"),
            lambda: live.erase("anna", timeout_s=WAIT_S),
        ]
        for ask in asks:
            with pytest.raises(LipwireError):
                ask()
    anna = {"x-model-id": "anna"}
    assert handler.seen == [
        ("InferBatchComposite", anna),
        ("LoadModel", anna),
        ("ListModels", {}),
        ("Converse", anna),
        ("Converse", {"x-session-id": "the%20session"}),
        ("EraseAvatar", anna),
    ]


def test_a_name_that_is_too_long_is_refused_by_the_server(serve_live: ServeLive) -> None:
    with AvatarConnection(serve_live().address) as client, pytest.raises(LipwireError) as refused:
        client.converse("n" * 100_000)
    assert not isinstance(refused.value, NotFound)
    assert "model_id" in str(refused.value)


def test_a_server_says_in_its_first_headers_which_session_it_is(serve_live: ServeLive) -> None:
    live = serve_live()
    with Raw(live) as client:
        client.say(start=StartSession(model_id="anna"))
        metadata = dict(client.answers.initial_metadata())
        started = client.until("started")
        assert metadata["x-session-id"] == started.session_id
        client.answers.cancel()


@pytest.mark.slow
def test_a_stream_that_is_refused_says_so_before_its_status(serve_live: ServeLive) -> None:
    live = serve_live()
    for ends in (True, False):
        with Raw(live) as client:
            client.say(start=StartSession(model_id="nobody"))
            assert dict(client.answers.initial_metadata()) == {"x-refused": "1"}
            if ends:
                client.send(None)
            with pytest.raises(grpc.RpcError) as refused:
                client.until("started")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_the_status_waits_for_the_clients_end_where_it_comes(
    serve_live: ServeLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipwire.rpc.services.conversing._REFUSED_WITHIN_S", WAIT_S)
    live = serve_live()
    with Raw(live) as client:
        client.say(start=StartSession(model_id="nobody"))
        answers: Any = client.answers
        assert "x-refused" in dict(answers.initial_metadata())
        assert not answers.done()
        client.send(None)
        until(answers.done)
        assert answers.code() is grpc.StatusCode.NOT_FOUND
    with AvatarConnection(live.address) as connection, pytest.raises(NotFound):
        connection.converse("nobody")
