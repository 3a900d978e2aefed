"""The document that describes the HTTP API, against the routes."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from tests.support.webparts import WebHouse

import lipwire
from lipwire.session.live import SessionRules
from lipwire.web.app import web_app
from lipwire.web.identified import Identified
from lipwire.web.openapi import ROUTES, document


@pytest.fixture
def house() -> Iterator[WebHouse]:
    with WebHouse(SessionRules(max_sessions=1)) as house:
        yield house


def routes(given: Sequence[BaseRoute], before: str = "") -> Iterator[tuple[str, str]]:
    """Methods and paths."""
    for route in given:
        if isinstance(route, Mount):
            yield from routes(route.routes or [], before + route.path)
        elif isinstance(route, Route):
            for method in route.methods or ():
                if method != "HEAD":
                    yield method, before + route.path
        elif isinstance(route, WebSocketRoute) and "path:path" not in route.path:
            yield "GET", before + route.path


def test_every_route_is_described_and_nothing_else(house: WebHouse) -> None:
    app = web_app(house.hub, list, healthy=lambda: True, hosts=[], token="x")
    assert isinstance(app.app, Identified)
    assert isinstance(app.app.app, Starlette)
    there = list(routes(app.app.app.routes))
    described = [(one.method, one.path) for one in ROUTES]
    assert sorted(there) == sorted(described)
    assert len(set(described)) == len(described)


def test_the_document_is_served(house: WebHouse) -> None:
    told = house.ask("GET", "/openapi.json", token=None)
    assert (told.status, told.media_type) == (200, "application/json")
    assert told.json == document()
    assert told.json["openapi"].startswith("3.1")
    assert told.json["info"]["version"] == lipwire.__version__


def test_every_part_of_a_path_is_a_parameter() -> None:
    for path, methods in document()["paths"].items():
        for method, one in methods.items():
            named = {each["name"] for each in one.get("parameters", []) if each["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part[:1] == "{"}
            assert all(answer["description"] for answer in one["responses"].values()), method


SDP = {"Content-Type": "application/sdp"}
PCM = {"Content-Type": "audio/pcm"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/v1/avatars", None, {}, 200),
        ("GET", "/v1/avatars", None, {"Host": "evil.example"}, 403),
        ("GET", "/v1/sessions", None, {}, 200),
        ("POST", "/v1/sessions", {}, {}, 400),
        ("POST", "/v1/sessions", {"avatar": "anna"}, {}, 429),
        ("GET", "/v1/sessions/{session}", None, {}, 200),
        ("GET", "/v1/sessions/none", None, {}, 404),
        ("DELETE", "/v1/sessions/{session}", None, {}, 204),
        ("POST", "/v1/sessions/{session}/speak", b"", PCM, 202),
        ("POST", "/v1/sessions/{session}/speak", {"text": "Hello"}, {}, 501),
        ("POST", "/v1/sessions/{session}/speak", b"", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/sessions/{session}/interrupt", None, {}, 204),
        ("GET", "/v1/sessions/none/events", None, {}, 404),
        ("GET", "/v1/sessions/none/mjpeg", None, {}, 404),
        ("POST", "/whep/{avatar}", b"x", SDP, 400),
        ("POST", "/whep/{avatar}", b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0", SDP, 406),
        ("POST", "/whep/{avatar}", b"x", {}, 415),
        ("OPTIONS", "/whep/{avatar}", None, {}, 204),
        ("OPTIONS", "/whep/{avatar}/{viewer}/{session}", None, {}, 204),
        ("PATCH", "/whep/{avatar}/{viewer}/{session}", None, {}, 404),
        ("DELETE", "/whep/{avatar}/{viewer}/{session}", None, {}, 404),
        ("GET", "/openapi.json", None, {}, 200),
        ("GET", "/healthz", None, {}, 200),
        ("GET", "/readyz", None, {}, 200),
    ],
)
def test_answers_are_as_described(
    house: WebHouse, method: str, path: str, body: Any, headers: dict[str, str], status: int
) -> None:
    session = house.open()
    answer = house.ask(method, path.replace("{session}", session), body, headers)
    assert answer.status == status, answer
    described = document()["paths"][path.replace("/none", "/{session}")][method.lower()]
    content = described["responses"][str(status)].get("content", {"": {}})
    assert answer.media_type in content
    assert bool(answer.body) == ("" not in content)
