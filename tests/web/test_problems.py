"""Errors as HTTP answers, and as answers to WebSockets."""

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message
from tests.support.webparts import TOKEN, WebHouse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from lipwire.domain import (
    LimitExceeded,
    LipwireError,
    MinutesUsedUp,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from lipwire.domain.tracing import Trace, traced
from lipwire.session.live import SessionRules
from lipwire.web.problems import _STATUSES, _TITLES, answer_of, code_of, refuse, told_of

ERRORS: list[LipwireError] = [
    NotFound("no such avatar"),
    PermissionDenied("this needs live"),
    Unauthenticated("the key is not known"),
    Overloaded("there is no room", retry_after_s=7),
    Unavailable("the server is shutting down"),
    LimitExceeded("too many requests", policy="requests", retry_after_s=3.5),
    MinutesUsedUp("no minutes", used_minutes=61, allowed_minutes=60, renewed_in_s=3600),
]


def test_each_status_that_is_answered_is_recorded_as_one_of_grpc() -> None:
    codes = {status: code_of(status) for status in _TITLES}
    assert "UNKNOWN" not in codes.values()
    assert {code: codes[status] for code, status in _STATUSES.items()} == {
        code: "FAILED_PRECONDITION" if status == 409 else code for code, status in _STATUSES.items()
    }
    assert codes[500] == "INTERNAL"
    assert codes[402] == "RESOURCE_EXHAUSTED"
    for refused in (406, 413, 415, 422):
        assert codes[refused] == "INVALID_ARGUMENT"
    assert codes[412] == "FAILED_PRECONDITION"
    assert codes[405] == codes[501] == "UNIMPLEMENTED"
    assert code_of(204) == "OK"
    assert code_of(499) == "CANCELLED"
    assert code_of(418) == "UNKNOWN"


def refusal(kind: str, error: LipwireError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and members of what a request is refused with."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": kind, "extensions": {"websocket.http.response": {}}, "headers": []}
    told = told_of(error, "/v1/socket", lambda: 5)
    asyncio.run(refuse(scope, receive, send, told))
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], headers, json.loads(body["body"])


@pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])
def test_a_socket_is_refused_as_a_request_is(error: LipwireError) -> None:
    told = refusal("websocket", error)
    assert told == refusal("http", error)
    status, headers, members = told
    answer = answer_of(told_of(error, "/v1/socket", lambda: 5))
    assert (status, members) == (answer.status_code, json.loads(bytes(answer.body)))
    assert members["code"] == error.code
    assert headers["content-type"] == "application/problem+json"
    assert ("retry-after" in headers) == (error.retryable or status == 402)
    assert ("www-authenticate" in headers) == (status == 401)
    assert members.get("active") == (5 if status == 429 else None)


def test_sockets_are_told_when_to_come_back_and_how_many_sessions_run() -> None:
    with WebHouse(SessionRules(max_sessions=1)) as house:
        house.open()
        address = f"ws://127.0.0.1:{house.port}/v1/socket?avatar=anna"
        with pytest.raises(InvalidStatus) as refused:
            connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"})
    response = refused.value.response
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    told = json.loads(response.body)
    assert (told["code"], told["active"]) == ("RESOURCE_EXHAUSTED", 1)


def test_a_problem_has_the_id_of_its_request() -> None:
    with traced(Trace("mine-1", "0" * 32)):
        answer = answer_of(told_of(NotFound("no such avatar"), "/v1/socket"))
    assert json.loads(bytes(answer.body))["request_id"] == "mine-1"
    assert "request_id" not in json.loads(bytes(answer_of(told_of(NotFound("no"), "/")).body))
