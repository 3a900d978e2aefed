"""What a request is about."""

from typing import Any

import pytest

from lipwire.web.asked import (
    avatar_of,
    call_of,
    is_api,
    is_before_opening,
    is_listing,
    is_opening,
    operation_of,
    session_of,
)


def scope_of(asked: str) -> dict[str, Any]:
    method, _, target = asked.partition(" ")
    path, _, query = target.partition("?")
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    if method == "WS":
        scope |= {"type": "websocket"}
        del scope["method"]
    return scope


@pytest.mark.parametrize(
    ("asked", "opens", "session"),
    [
        ("POST /v1/sessions", True, None),
        ("POST /v1/sessions/", True, None),
        ("GET /v1/sessions", False, None),
        ("WS /v1/socket", True, None),
        ("GET /v1/socket", False, None),
        ("WS /v1/sessions", False, None),
        ("WS /v1/sessions/7/socket", False, "7"),
        ("GET /v1/sessions/7/nothing", False, None),
        ("DELETE /v1/sessions/7", False, "7"),
        ("POST /whep/anna", True, None),
        ("POST /whep/anna?session=", True, None),
        ("POST /whep/anna?session=7", False, "7"),
        ("POST /whep/anna?session=7&session=", True, None),
        ("POST /whep/anna?session=&session=7", False, "7"),
        ("OPTIONS /whep/anna", False, None),
        ("OPTIONS /whep/anna?session=7", False, "7"),
        ("PATCH /whep/anna/viewer/7", False, "7"),
        ("GET /", False, None),
    ],
)
def test_a_request_opens_a_session_or_is_about_one(
    asked: str, opens: bool, session: str | None
) -> None:
    scope = scope_of(asked)
    assert (is_opening(scope), session_of(scope)) == (opens, session)
    assert is_before_opening(scope) == (asked == "OPTIONS /whep/anna")
    assert is_listing(scope) == (asked == "GET /v1/sessions")


@pytest.mark.parametrize(
    ("asked", "operation", "avatar", "call"),
    [
        ("GET /", None, "", "GET /"),
        ("GET /healthz", None, "", "GET /healthz"),
        ("GET /v1/avatars", "read", "", "GET /v1/avatars"),
        ("GET /metrics", "read", "", "GET /metrics"),
        ("OPTIONS /whep/anna", None, "anna", "OPTIONS /whep/anna"),
        ("POST /whep/anna", "live", "anna", "POST /whep/anna"),
        ("DELETE /whep/anna/v/7", "live", "anna", "DELETE /whep/anna/{id}/{id}"),
        ("POST /v1/sessions/7/speak", "live", "", "POST /v1/sessions/{id}/speak"),
        ("WS /v1/sessions/7/socket", "live", "", "WebSocket /v1/sessions/{id}/socket"),
        ("POST /v1/render", "deliver", "", "POST /v1/render"),
        ("GET /v1/renders", "deliver", "", "GET /v1/renders"),
        ("DELETE /v1/renders/7", "deliver", "", "DELETE /v1/renders/{id}"),
        ("GET /v1/renders/7/video.mp4", "deliver", "", "GET /v1/renders/{id}/video.mp4"),
    ],
)
def test_a_request_is_recorded_without_ids(
    asked: str, operation: str | None, avatar: str, call: str
) -> None:
    scope = scope_of(asked)
    assert (operation_of(scope), avatar_of(scope), call_of(scope)) == (operation, avatar, call)
    assert is_api(scope) == (operation is not None or asked.startswith("OPTIONS"))
