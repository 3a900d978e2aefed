"""Errors as HTTP answers: problem details (RFC 9457)."""

import json
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

from lipwire.domain import Cancelled, LipwireError
from lipwire.web.peers import NoCommonCodec

_LOG: Final = logging.getLogger("lipwire.web")
_STATUSES: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "FAILED_PRECONDITION": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_RETRY_AFTER_S: Final = 1.0
PROBLEM: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Told:
    """What a client is told of an error."""

    status: int
    detail: str
    retry_after_s: float | None = None
    code: str = ""
    """The name of a gRPC status."""
    incident: str = ""
    """What the log has it under; empty where the client is told all."""

    @property
    def more(self) -> dict[str, Any]:
        """Further members of the problem details: ``code`` and ``incident``, those that are not
        empty."""
        told = {"code": self.code, "incident": self.incident}
        return {name: value for name, value in told.items() if value}


def problem(
    status: int,
    detail: str,
    *,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return an HTTP answer of ``status`` with problem details (RFC 9457); ``detail`` says in one
    line what is wrong. ``retry_after_s`` says after how many seconds another attempt may succeed;
    ``headers`` are added to the answer's, ``more`` to the members of its JSON object."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
    }
    told = dict(headers or {})
    if retry_after_s is not None:
        told["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    # Escaped, as what was asked for may be no text that UTF-8 has.
    text = json.dumps({**body, "detail": detail, **more})
    return Response(text, status, told, media_type=PROBLEM)


_TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    422: "Cannot be done",
    429: "Too many sessions",
    500: "Internal error",
    501: "Not there",
    503: "Unavailable",
    504: "Timed out",
}


def answering(active: Callable[[], int]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return an exception handler for Starlette, which answers with problem details. ``active()``
    returns how many live sessions run, which clients are told where there are too many."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return problem(error.status_code, error.detail, headers=error.headers)
        told = told_of(error, request.url.path)
        more: dict[str, Any] = {"active": active()} if told.status == 429 else {}
        return problem(
            told.status, told.detail, retry_after_s=told.retry_after_s, **told.more, **more
        )

    return answer


def told_of(error: Exception, place: str) -> Told:
    """Return what a client is told of ``error``. One that nobody foresaw is logged under a new
    incident number, which the client is told instead; ``place`` says in the log what failed, such
    as a path."""
    if isinstance(error, Cancelled):
        return Told(404, "there is no such session; it has ended", code="NOT_FOUND")
    if isinstance(error, NoCommonCodec):
        return Told(406, str(error), code=error.code)
    if isinstance(error, LipwireError) and error.code in _STATUSES:
        after_s = getattr(error, "retry_after_s", None)
        if error.retryable and after_s is None:
            after_s = _RETRY_AFTER_S
        return Told(_STATUSES[error.code], str(error), after_s, error.code)
    incident = secrets.token_hex(4)
    _LOG.error("%s failed; incident %s", place, incident, exc_info=error)
    return Told(
        500, f"the server's log has it under {incident}", code="INTERNAL", incident=incident
    )


async def refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Refuse the WebSocket of the ASGI ``scope``, ``receive`` and ``send`` before it is opened:
    with an HTTP answer of ``status`` and ``detail`` where the server can send one, else by closing
    it with code 1008."""
    if "websocket.http.response" in scope.get("extensions", {}):
        socket = WebSocket(scope, receive, send)
        await socket.send_denial_response(problem(status, detail))
    else:
        await WebSocketClose(1008, detail[:100])(scope, receive, send)
