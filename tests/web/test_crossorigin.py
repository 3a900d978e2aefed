"""Pages of other origins: what browsers are told of them, and what they may do."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.support.webparts import TOKEN, WebHouse
from tests.web.test_app import fails
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

LISTED, OTHER = "https://app.example", "https://evil.example"
EXPOSED = (
    "Location, ETag, Link, Retry-After, Content-Range, Accept-Ranges, X-Request-Id,"
    " RateLimit-Policy, RateLimit, Lipwire-Session-Token"
)
ORIGINS = [None, LISTED, "https://APP.example", OTHER, "http://app.example", "null", "*"]
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}
SDP = {"Content-Type": "application/sdp"}
METHODS: Mapping[str, tuple[str, str, Any, Mapping[str, str], int]] = {
    "get": ("GET", "/v1/avatars", None, {}, 200),
    "page": ("GET", "/lipwire.js", None, {}, 200),
    "missing": ("GET", "/v1/sessions/none", None, {}, 404),
    "open": ("POST", "/v1/sessions", {"avatar": "anna"}, {}, 201),
    "speak": ("POST", "/v1/sessions/none/speak", {"text": "Hello"}, {}, 404),
    "whep": ("POST", "/whep/anna", b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0", SDP, 406),
    "patch": ("PATCH", "/whep/anna/viewer/session", None, {}, 404),
    "leave": ("DELETE", "/whep/anna/viewer/session", None, {}, 404),
    "end": ("DELETE", "/v1/sessions/none", None, {}, 404),
}
CHANGING = {"open", "speak", "whep", "patch", "leave", "end"}


@pytest.fixture(scope="module")
def house() -> Iterator[WebHouse]:
    with WebHouse(origins=["https://app.example"]) as house:
        yield house


@pytest.fixture(scope="module")
def open_house() -> Iterator[WebHouse]:
    with WebHouse(origins=["*"]) as house:
        yield house


@pytest.fixture(scope="module")
def closed_house() -> Iterator[WebHouse]:
    with WebHouse() as house:
        yield house


def allowed(headers: Mapping[str, str]) -> str | None:
    return headers.get("access-control-allow-origin")


@pytest.mark.slow
@pytest.mark.parametrize("token", [None, TOKEN], ids=["without", "token"])
@pytest.mark.parametrize("origin", ORIGINS, ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_who_may_do_what(house: WebHouse, name: str, origin: str | None, token: str | None) -> None:
    method, path, body, headers, status = METHODS[name]
    of = {} if origin is None else {"Origin": origin}
    answer = house.ask(method, path, body, {**headers, **of}, token=token)
    listed = origin is not None and origin.lower() == LISTED
    if name in CHANGING and not listed and token is None:
        fails(answer, 403)
    else:
        assert answer.status == status, answer
    assert allowed(answer.headers) == (origin if listed else None)
    assert "origin" in answer.headers["vary"].lower()
    told = answer.headers.get("access-control-expose-headers")
    assert told == (EXPOSED if listed else None)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ORIGINS, ids=str)
@pytest.mark.parametrize(
    "path", ["/whep/anna", "/whep/anna/viewer/session", "/v1/sessions", "/v1/sessions/x/speak"]
)
def test_browsers_are_told_beforehand(house: WebHouse, path: str, origin: str | None) -> None:
    of = {} if origin is None else {"Origin": origin}
    answer = house.ask("OPTIONS", path, headers={**PREFLIGHT, **of}, token=None)
    listed = origin is not None and origin.lower() == LISTED
    assert allowed(answer.headers) == (origin if listed else None)
    methods = answer.headers.get("access-control-allow-methods", "")
    if listed:
        assert answer.status == 204
        assert {"GET", "POST", "PATCH", "DELETE"} <= set(methods.split(", "))
        taken = answer.headers["access-control-allow-headers"].lower().split(", ")
        assert {"authorization", "content-type"} <= set(taken)
        assert "access-control-allow-private-network" not in answer.headers
    else:
        assert not methods


def test_public_pages_of_a_listed_origin_may_reach_this_machine(house: WebHouse) -> None:
    asked = {**PREFLIGHT, "Access-Control-Request-Private-Network": "true"}
    for origin, wanted in ((LISTED, "true"), (OTHER, None)):
        answer = house.ask("OPTIONS", "/v1/sessions", headers={**asked, "Origin": origin})
        assert answer.headers.get("access-control-allow-private-network") == wanted


def test_options_of_whep_are_as_without_a_browser(house: WebHouse) -> None:
    answer = house.ask("OPTIONS", "/whep/anna", headers={"Origin": LISTED})
    assert answer.headers["accept-post"] == "application/sdp"
    assert allowed(answer.headers) == LISTED


def test_a_listed_page_under_a_wrong_name_is_refused(house: WebHouse) -> None:
    headers = {"Origin": LISTED, "Host": "evil.example"}
    fails(house.ask("POST", "/v1/sessions", {"avatar": "anna"}, headers), 403)


@pytest.mark.parametrize("origin", [None, LISTED, OTHER, "null"], ids=str)
def test_sockets_open_for_listed_pages_alone(house: WebHouse, origin: str | None) -> None:
    session = house.open()
    url = f"ws://127.0.0.1:{house.server.port}/v1/sessions/{session}/socket"
    of = None if origin is None else Origin(origin)
    if origin == LISTED:
        with connect(url, proxy=None, origin=of) as connection:
            assert json.loads(connection.recv(60))["type"] == "session"
        return
    with pytest.raises(InvalidStatus) as refused, connect(url, proxy=None, origin=of):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("origin", [LISTED, OTHER, "null", "*"])
def test_any_page_may_read_where_all_are_allowed_and_change_with_the_token(
    open_house: WebHouse, origin: str
) -> None:
    of = {"Origin": origin}
    answer = open_house.ask("GET", "/v1/avatars", headers=of, token=None)
    assert (answer.status, allowed(answer.headers)) == (200, origin)
    answer = open_house.ask("POST", "/v1/sessions", {"avatar": "anna"}, of, token=None)
    fails(answer, 403)
    assert allowed(answer.headers) == origin
    answer = open_house.ask("POST", "/v1/sessions", {"avatar": "anna"}, of)
    assert (answer.status, allowed(answer.headers)) == (201, origin)
    assert open_house.ask("OPTIONS", "/v1/sessions", headers={**PREFLIGHT, **of}).status == 204


def test_without_a_list_nothing_is_told(closed_house: WebHouse) -> None:
    of = {"Origin": LISTED}
    for answer in (
        closed_house.ask("GET", "/v1/avatars", headers=of),
        closed_house.ask("OPTIONS", "/whep/anna", headers={**PREFLIGHT, **of}),
        closed_house.ask("POST", "/v1/sessions", {"avatar": "anna"}, of),
    ):
        assert answer.status in (200, 201, 204)
        assert not [name for name in answer.headers if name.startswith("access-control")]
    fails(closed_house.ask("POST", "/v1/sessions", {"avatar": "anna"}, of, token=None), 403)


def test_pages_can_read_that_the_server_failed(house: WebHouse, caplog: Any) -> None:
    def broken() -> bool:
        raise RuntimeError("made up")

    house.healthy = broken
    answer = house.ask("GET", "/readyz", headers={"Origin": LISTED})
    fails(answer, 500)
    assert allowed(answer.headers) == LISTED
    assert "made up" in caplog.text
