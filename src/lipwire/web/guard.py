"""Who may ask: any web page that is open in a browser can reach a server on the same machine."""

import hmac
from collections.abc import Collection
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lipwire.web.crossorigin import ANY_ORIGIN
from lipwire.web.passing import is_passed_on
from lipwire.web.problems import problem, refuse

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HAS_TOKEN: Final = "has_token"
_MAY_CHANGE: Final = "may_change"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Guard:
    """Refuses requests under another name than this server's (DNS rebinding), and those that change
    something and come from another page without the token (cross-site requests)."""

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str], token: str, origins: Collection[str] = ()
    ) -> None:
        """``hosts`` are the names that this server is reached by, besides loopback. Who has
        ``token`` may ask from anywhere, and pages of ``origins``, in lower case, without it; ``*``
        among them is none."""
        self._app = app
        self._hosts = _LOOPBACK | {host.lower() for host in hosts}
        self._any = "*" in hosts
        self._token = token
        self._origins = frozenset(origins) - {ANY_ORIGIN}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it. One that another process of the server has passed on
        was looked at there."""
        if scope["type"] not in ("http", "websocket") or is_passed_on(scope):
            await self._app(scope, receive, send)
            return
        has = self._has_token(scope)
        may = has or _from_own_page(scope) or self._from_listed_page(scope)
        scope["state"] = {**scope.get("state", {}), _HAS_TOKEN: has, _MAY_CHANGE: may}
        why = self._refused(scope)
        if why is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await refuse(scope, receive, send, 403, why)
        else:
            answer: Response = problem(403, why)
            await answer(scope, receive, send)

    def _refused(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._any and _name_of(host) not in self._hosts:
            return f"this server is not called {host[:100]}; web.hosts names its names"
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        if may_change(scope):
            return None
        return (
            "this changes something: send the token (Authorization: Bearer TOKEN, the server's"
            " log has it), or ask from the server's own page or one of web.allowed_origins"
        )

    def _from_listed_page(self, scope: Scope) -> bool:
        return Headers(scope=scope).get("origin", "").lower() in self._origins

    def _has_token(self, scope: Scope) -> bool:
        given = Headers(scope=scope).get("authorization", "").removeprefix("Bearer ")
        if not given and scope["type"] == "websocket":
            given = _query_token(scope)
        return hmac.compare_digest(given.encode(), self._token.encode())


def has_token(scope: Scope) -> bool:
    """Return whether a request came with the token."""
    return bool(scope["state"][_HAS_TOKEN])


def may_change(scope: Scope) -> bool:
    """Return whether a request came with the token or from the server's own page."""
    return bool(scope["state"][_MAY_CHANGE])


def _from_own_page(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _name_of(host: str) -> str:
    """Without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _query_token(scope: Scope) -> str:
    """Browsers cannot set headers of a WebSocket."""
    query = scope.get("query_string", b"").decode("latin-1")
    given: dict[str, str] = dict(parse_qsl(query))
    return given.get("token", "")
