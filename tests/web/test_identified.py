"""Ids of HTTP requests and WebSockets."""

import asyncio
from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send
from tests.support.webparts import TOKEN, WebHouse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lipwire.domain.tracing import Trace, trace_of
from lipwire.rpc.workers import WorkerPlace, socket_folder
from lipwire.web.identified import Identified

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
PAGE = "https://shop.example"


@pytest.fixture(scope="module")
def house() -> Iterator[WebHouse]:
    with WebHouse(origins=[PAGE]) as house:
        yield house


@pytest.mark.parametrize("path", ["/v1/avatars", "/", "/healthz", "/nothing", "/v1/sessions/none"])
def test_every_answer_has_the_requests_id(house: WebHouse, path: str) -> None:
    answer = house.ask("GET", path, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    if answer.status >= 400:
        assert answer.json["request_id"] == "mine-1"


def test_without_one_it_is_that_of_the_callers_trace_or_a_new_one(house: WebHouse) -> None:
    of_trace = house.ask("GET", "/healthz", headers={"traceparent": PARENT})
    assert of_trace.headers["x-request-id"] == TRACE_ID
    new = {house.ask("GET", "/healthz").headers["x-request-id"] for _ in range(3)}
    assert {len(each) for each in new} == {32}
    assert len(new) == 3


def test_what_is_refused_has_an_id_and_pages_may_read_it(house: WebHouse) -> None:
    headers = {"Origin": PAGE, "X-Request-Id": "mine-2", "Host": "rebound.example"}
    refused = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, headers)
    assert refused.status == 403
    assert refused.headers["x-request-id"] == refused.json["request_id"] == "mine-2"
    assert "X-Request-Id" in refused.headers["access-control-expose-headers"]


def test_a_session_is_begun_under_the_id_of_the_request_for_it(house: WebHouse) -> None:
    opened = house.ask("POST", "/v1/sessions", {"avatar": "anna"}, {"X-Request-Id": "mine-3"})
    session = house.sessions.find(opened.json["id"])
    assert session.trace is not None
    assert session.trace.request_id == "mine-3"


def test_sockets_have_one_too(house: WebHouse) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Request-Id": "mine-4"}
    address = f"ws://127.0.0.1:{house.port}/v1/socket?avatar="
    with connect(f"{address}anna", additional_headers=headers) as socket:
        assert socket.response is not None
        assert socket.response.headers["X-Request-Id"] == "mine-4"
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{address}nobody", additional_headers=headers)
    assert refused.value.response.headers["X-Request-Id"] == "mine-4"


def test_the_process_that_has_the_session_works_for_the_same_request() -> None:
    headers = {"X-Request-Id": "mine-5", "traceparent": PARENT}
    with (
        socket_folder() as folder,
        WebHouse(place=WorkerPlace(folder, 0, 2)) as first,
        WebHouse(place=WorkerPlace(folder, 1, 2)) as second,
    ):
        session = first.open()
        asked = second.ask("GET", f"/v1/sessions/{session}", headers=headers)
        missing = second.ask("DELETE", f"/whep/anna/nobody/{session}", headers=headers)
    assert asked.headers["x-request-id"] == "mine-5"
    assert missing.status == 404
    assert missing.json["request_id"] == "mine-5"  # which the first one has written


def test_a_request_is_handed_on_as_part_of_its_span() -> None:
    """What another process does for it comes below it, and is left out where it is."""
    given: list[Trace] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given.append(trace_of(Headers(scope=scope)))

    async def ask(headers: list[tuple[bytes, bytes]]) -> None:
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        await Identified(app)(scope, NotImplemented, NotImplemented)

    asyncio.run(ask([(b"traceparent", PARENT.encode()), (b"x-request-id", b"mine-6")]))
    asyncio.run(ask([(b"x-request-id", b"mine-7")]))
    of_caller, unrecorded = given
    assert (of_caller.request_id, of_caller.trace_id, of_caller.sampled) == (
        "mine-6",
        TRACE_ID,
        True,
    )
    assert (unrecorded.request_id, unrecorded.sampled) == ("mine-7", False)
    assert unrecorded.span_id, "so that it is no root, which would be recorded"
