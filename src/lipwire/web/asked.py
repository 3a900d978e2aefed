"""What a request is about, by its method, path and query alone: who looks at it first, which
process of the server answers it, and what a page's ticket allows all depend on that."""

from typing import Final
from urllib.parse import parse_qs

from starlette.types import Scope

from lipwire.domain import Operation

_API: Final = ("v1", "whep", "metrics")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_A_RENDER: Final = ("video.mp4", "video.m3u8", "video.m4s")
_OF_A_SESSION: Final = ("speak", "interrupt", "events", "mjpeg", "socket")


def is_api(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope`` is to the HTTP API, and not for a file of
    the web page or the health of the server."""
    return _parts(scope)[0] in _API


def operation_of(scope: Scope) -> Operation | None:
    """Return the operation (of ``Access.operations``) that the request of the ASGI ``scope`` needs;
    None where anybody may make it."""
    parts = _parts(scope)
    if parts[0] not in _API or scope.get("method") == "OPTIONS":
        return None
    if is_render(scope):
        return "deliver"
    return "read" if parts == ["metrics"] or parts[:2] == ["v1", "avatars"] else "live"


def is_render(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope`` is about finished videos."""
    return _parts(scope)[:2] in (["v1", "render"], ["v1", "renders"])


def files_render(scope: Scope) -> str | None:
    """Return the id of the render of which the request of the ASGI ``scope`` asks for a file, such
    as its video; None where the request is for no file of a render. Whether there is such a render
    is not looked at."""
    match _parts(scope):
        case ["v1", "renders", render, what] if what in _OF_A_RENDER:
            return render
    return None


def is_signed(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope`` is for a file of a render, by a link with a
    signature; whether the signature is right is not looked at."""
    return files_render(scope) is not None and b"signature=" in scope.get("query_string", b"")


def is_opening(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope``, HTTP or WebSocket, is to open a session."""
    match (scope.get("method"), *_parts(scope)):
        case ("POST", "v1", "sessions") | (None, "v1", "socket"):  # a WebSocket has no method
            return True
        case ("POST", "whep", _):
            return not _queried(scope)
    return False


def is_before_opening(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope`` asks for the ICE servers (OPTIONS of WHEP),
    as viewers do before they open a session."""
    match (scope.get("method"), *_parts(scope)):
        case ("OPTIONS", "whep", _):
            return not _queried(scope)
    return False


def is_listing(scope: Scope) -> bool:
    """Return whether the request of the ASGI ``scope`` asks which sessions there are."""
    return (scope.get("method"), *_parts(scope)) == ("GET", "v1", "sessions")


def session_of(scope: Scope) -> str | None:
    """Return the id of the session that the request of the ASGI ``scope`` is about; None where it
    is about none."""
    match _parts(scope):
        case ["v1", "sessions", session]:
            return session
        case ["v1", "sessions", session, what] if what in _OF_A_SESSION:
            return session
        case ["whep", _, _, session]:
            return session
        case ["whep", _]:
            return _queried(scope) or None
    return None


def avatar_of(scope: Scope) -> str:
    """Return the name of the avatar in the path of the ASGI ``scope``, which paths of WHEP alone
    have; empty where there is none."""
    parts = _parts(scope)
    return parts[1] if parts[0] == "whep" and len(parts) > 1 else ""


def call_of(scope: Scope) -> str:
    """Return the method and the path of the request of the ASGI ``scope`` for the record of calls,
    such as ``GET /v1/renders/{id}``; the method of a WebSocket is given as ``WebSocket``. ``{id}``
    stands in place of the ids of renders and sessions, because whoever knows the id of a session
    can take part in it."""
    match _parts(scope):
        case ["v1", "sessions", _, *rest]:
            parts = ["v1", "sessions", "{id}", *rest]
        case ["v1", "renders", _, *rest]:
            parts = ["v1", "renders", "{id}", *rest]
        case ["whep", avatar, *rest]:
            parts = ["whep", avatar, *("{id}" for _ in rest)]
        case parts:
            pass
    return f"{scope.get('method', 'WebSocket')} /{'/'.join(parts)}"


def route_of(scope: Scope) -> str:
    """Return the method and the route of the request of the ASGI ``scope``, such as ``POST
    /whep/{avatar}``. There are only a few dozen different results, whatever clients ask for."""
    method = "WebSocket" if scope["type"] == "websocket" else scope["method"]
    if method not in _METHODS and method != "WebSocket":
        method = "other"
    return f"{method} {_route(_parts(scope))}"


def _route(parts: list[str]) -> str:
    match parts:
        case [""] | ["healthz"] | ["readyz"] | ["metrics"] | ["openapi.json"]:
            return "/" + parts[0]
        case ["v1", "avatars" | "sessions" | "tickets" | "socket" | "render" | "renders"]:
            return "/".join(("", *parts))
        case ["v1", "sessions", _]:
            return "/v1/sessions/{id}"
        case ["v1", "sessions", _, what] if what in _OF_A_SESSION:
            return f"/v1/sessions/{{id}}/{what}"
        case ["v1", "renders", _]:
            return "/v1/renders/{id}"
        case ["v1", "renders", _, what] if what in _OF_A_RENDER:
            return f"/v1/renders/{{id}}/{what}"
        case ["whep", _]:
            return "/whep/{avatar}"
        case ["whep", _, *_]:
            return "/whep/{avatar}/{id}"
    return "other"


def _parts(scope: Scope) -> list[str]:
    parts: list[str] = scope["path"].strip("/").split("/")
    return parts


def _queried(scope: Scope) -> str:
    """The session in the query; of several the last, also where that is empty."""
    text: bytes = scope.get("query_string", b"")
    query = parse_qs(text.decode("latin-1"), keep_blank_values=True)
    return query.get("session", [""])[-1]
