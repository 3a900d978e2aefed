"""Requests of the web are told when they have ended."""

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.waiting import until
from tests.support.webparts import TOKEN, WebHouse
from websockets.sync.client import connect

from lipwire.domain import Access
from lipwire.web.asked import route_of
from lipwire.web.measured import Measured

Told = list[tuple[str, str, float | None, Access | None]]


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def house(told: Told) -> Iterator[WebHouse]:
    with WebHouse(finished=lambda *each: told.append(each)) as house:
        yield house


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/", "GET /"),
        ("GET", "/healthz", "GET /healthz"),
        ("POST", "/v1/sessions", "POST /v1/sessions"),
        ("DELETE", "/v1/sessions/abc", "DELETE /v1/sessions/{id}"),
        ("POST", "/v1/sessions/abc/speak", "POST /v1/sessions/{id}/speak"),
        ("POST", "/v1/sessions/abc/sing", "POST other"),
        ("POST", "/whep/anna", "POST /whep/{avatar}"),
        ("PATCH", "/whep/anna/v/s", "PATCH /whep/{avatar}/{id}"),
        ("GET", "/../../etc/passwd", "GET other"),
        ("GET", "/v1", "GET other"),
        ("BREW", "/", "other /"),
    ],
)
def test_a_route_is_one_of_few_whatever_is_asked_for(method: str, path: str, route: str) -> None:
    assert route_of({"type": "http", "method": method, "path": path}) == route


def test_each_request_is_told_with_its_status_and_its_time(house: WebHouse, told: Told) -> None:
    house.ask("GET", "/v1/avatars")
    house.ask("GET", "/v1/sessions/nothing")
    house.ask("GET", "/nothing")
    until(lambda: len(told) == 3)
    calls = [(call, status) for call, status, _, _ in told]
    assert calls == [
        ("GET /v1/avatars", "200"),
        ("GET /v1/sessions/{id}", "404"),
        ("GET other", "404"),
    ]
    assert all(seconds is not None and 0 <= seconds < 60 for _, _, seconds, _ in told)


def test_what_is_refused_is_told_too(house: WebHouse, told: Told) -> None:
    house.ask("POST", "/v1/sessions", {"avatar": "anna"}, token=None)
    house.ask("GET", "/v1/avatars", headers={"Host": "evil.example"})
    until(lambda: len(told) == 2)
    assert [status for _, status, _, _ in told] == ["403", "403"]


def test_a_socket_is_told_when_it_ends_and_has_no_length(house: WebHouse, told: Told) -> None:
    session = house.open()
    until(lambda: told)
    told.clear()
    address = f"ws://127.0.0.1:{house.port}/v1/sessions/{session}/socket?token={quote(TOKEN)}"
    with connect(address) as client:
        client.recv()
        assert not told
    until(lambda: told)
    ((call, status, seconds, _),) = told
    assert (call, status, seconds) == ("WebSocket /v1/sessions/{id}/socket", "101", None)


def test_a_client_that_has_gone_is_no_error_of_the_server(told: Told) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def gone(message: Any) -> None:
        raise ConnectionResetError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(ConnectionResetError):
        asyncio.run(Measured(app, finished=lambda *each: told.append(each))(scope, nothing, gone))
    assert [(call, status) for call, status, _, _ in told] == [("GET /", "200")]


async def nothing() -> Any:
    """What a client that has gone sends."""


def test_a_defect_is_told_as_500(house: WebHouse, told: Told, monkeypatch: Any) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("a defect")

    monkeypatch.setattr(house.hub.sessions, "every", fails)
    assert house.ask("GET", "/v1/sessions").status == 500
    until(lambda: told)
    assert told[0][1] == "500"
