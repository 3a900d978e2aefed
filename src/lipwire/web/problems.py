"""Errors as HTTP answers: problem details (RFC 9457)."""

import json
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketClose

from lipwire.domain import Cancelled, LimitExceeded, LipwireError, MinutesUsedUp
from lipwire.domain.tracing import current_trace
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
_CODES: Final[Mapping[int, str]] = {
    **{status: code for code, status in reversed(list(_STATUSES.items()))},
    402: "RESOURCE_EXHAUSTED",
    405: "UNIMPLEMENTED",
    406: "INVALID_ARGUMENT",
    408: "DEADLINE_EXCEEDED",
    412: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    416: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    507: "RESOURCE_EXHAUSTED",
}
_RETRY_AFTER_S: Final = 1.0
PROBLEM: Final = "application/problem+json"
QUOTA: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The type of a problem that is a limit of the tenant's, as the draft of the RateLimit fields has
it; its member ``violated-policies`` says which."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a client is told of an error: the HTTP ``status``; ``detail``, one line of text;
    ``retry_after_s``, after how many seconds another attempt may succeed (None: not known);
    ``code``, the name of a gRPC status; ``incident``, the number under which the log has the error
    (empty where the client is told all); and ``counts``, further members of the problem details by
    name, such as how many sessions run where there are too many."""

    status: int
    detail: str
    retry_after_s: float | None = None
    code: str = ""
    """The name of a gRPC status."""
    incident: str = ""
    """What the log has it under; empty where the client is told all."""
    counts: Mapping[str, Any] = field(default_factory=dict)
    """What was counted, where that is too much: members of the problem details."""

    @property
    def more(self) -> dict[str, Any]:
        """The members that the problem details have besides status, title and detail: ``code``,
        ``incident`` (each only where it is not empty), and the members of ``counts``."""
        told = {"code": self.code, "incident": self.incident}
        return {**{name: value for name, value in told.items() if value}, **self.counts}


def problem(
    status: int,
    detail: str,
    *,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return an HTTP answer of ``status`` with problem details (RFC 9457), a JSON object.
    ``detail`` says in one line what is wrong. ``retry_after_s`` says after how many seconds another
    attempt may succeed (None: not said); ``headers`` are added to the answer's. ``more`` are
    further members of the JSON object. The member ``code``, the name of a gRPC status, is
    ``code_of(status)`` unless ``more`` has it. The object contains the id of the request, too,
    where there is one."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "code": code_of(status),
    }
    told = dict(headers or {})
    if retry_after_s is not None:
        told["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    if trace := current_trace():
        body["request_id"] = trace.request_id
    # Escaped, as what was asked for may be no text that UTF-8 has.
    text = json.dumps({**body, "detail": detail, **more})
    return Response(text, status, told, media_type=PROBLEM)


def code_of(status: int) -> str:
    """Return the name of the gRPC status that an HTTP ``status`` stands for: OK below 400,
    NOT_FOUND for 404; UNKNOWN for a status that this server does not answer with."""
    if status < 400:
        return "OK"
    return _CODES.get(status, "UNKNOWN")


_TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    401: "Unauthorized",
    402: "Used up",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    408: "Too slow",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    416: "Not such a part",
    422: "Cannot be done",
    429: "Too many requests",
    500: "Internal error",
    501: "Not there",
    503: "Unavailable",
    504: "Timed out",
    507: "No room",
}


def answering(active: Callable[[], int]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return an exception handler for Starlette, which is called with a request and the exception
    that its handling has raised, and answers with problem details (``told_of``). ``active()``
    returns how many live sessions run, which clients are told where there are too many of something
    (429)."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return problem(error.status_code, error.detail, headers=error.headers)
        return answer_of(told_of(error, request.url.path, active))

    return answer


def answer_of(told: Told) -> Response:
    """Return the HTTP answer, with problem details, that tells a client ``told``."""
    return problem(
        told.status,
        told.detail,
        retry_after_s=told.retry_after_s,
        headers={"WWW-Authenticate": "Bearer"} if told.status == 401 else None,
        **told.more,
    )


def told_of(error: Exception, place: str, active: Callable[[], int] | None = None) -> Told:
    """Return what a client is told of ``error``. An error that is none of Lipwire's is logged under
    a new incident number, and the client is told that number alone; ``place`` says in the log what
    failed, such as a path. ``active()`` returns how many live sessions run, which the client is
    told where the status is 429; with None for ``active`` the client is not told."""
    told = _told_of(error, place)
    if told.status != 429 or active is None:
        return told
    return replace(told, counts={**told.counts, "active": active()})


def _told_of(error: Exception, place: str) -> Told:
    if isinstance(error, Cancelled):
        return Told(404, "there is no such session; it has ended", code="NOT_FOUND")
    if isinstance(error, NoCommonCodec):
        return Told(406, str(error), code=error.code)
    if isinstance(error, MinutesUsedUp):
        counts = {
            "type": QUOTA,
            "violated-policies": ["live-minutes"],
            "used_minutes": round(error.used_minutes, 1),
            "allowed_minutes": error.allowed_minutes,
        }
        return Told(402, str(error), error.renewed_in_s, error.code, counts=counts)
    if isinstance(error, LipwireError) and error.code in _STATUSES:
        after_s = getattr(error, "retry_after_s", None)
        if error.retryable and after_s is None:
            after_s = _RETRY_AFTER_S
        counts = {}
        if isinstance(error, LimitExceeded):
            counts = {"type": QUOTA, "violated-policies": [error.policy]}
        return Told(_STATUSES[error.code], str(error), after_s, error.code, counts=counts)
    incident = secrets.token_hex(4)
    _LOG.error("%s failed; incident %s", place, incident, exc_info=error)
    return Told(
        500, f"the server's log has it under {incident}", code="INTERNAL", incident=incident
    )


async def refuse(scope: Scope, receive: Receive, send: Send, told: Told) -> None:
    """Answer the request of the ASGI ``scope``, ``receive`` and ``send`` with ``told``. A WebSocket
    is refused before it is opened: with an HTTP answer where the server can send one, else by
    closing it with code 1008."""
    if scope["type"] == "http":
        await answer_of(told)(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await WebSocket(scope, receive, send).send_denial_response(answer_of(told))
    else:
        await WebSocketClose(1008, told.detail[:100])(scope, receive, send)
