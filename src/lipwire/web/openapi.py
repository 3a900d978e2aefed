"""What the HTTP API looks like, as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0).

``ROUTES`` is the table that it is made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lipwire import __version__
from lipwire.web.problems import PROBLEM

_JSON: Final = "application/json"
_SDP: Final = "application/sdp"
_PCM: Final = ("audio/pcm", "audio/l16", "application/octet-stream")

NONE: Final = ""
"""The media type of an answer without a body."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What one method of a path does."""

    method: str
    path: str
    summary: str
    answers: Mapping[int, str]
    """The media types of what succeeds, by status."""
    problems: tuple[int, ...] = ()
    """Statuses of what fails; besides 403 and 500, which everything may."""
    takes: tuple[str, ...] = ()
    """The media types of its body."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The members of its JSON body, as JSON Schema; all of them are needed."""
    query: Mapping[str, str] = field(default_factory=dict)
    """What may follow the path, and what it means."""


_AUDIO: Final = {
    "rate": "samples a second of PCM; 16000 without it",
    "channels": "channels of PCM; 1 without it",
}
_BEGINS: Final = (400, 404, 409, 413, 429, 503, 504)
_VIEWER: Final = "/whep/{avatar}/{viewer}/{session}"
_SESSION: Final = "/v1/sessions/{session}"

ROUTES: Final = (
    Operation(
        "POST",
        "/whep/{avatar}",
        "View a new session of an avatar, or one that runs, over WebRTC (WHEP)",
        {201: _SDP},
        (*_BEGINS, 406, 415),
        (_SDP,),
        query={"session": "the id of a session that runs"},
    ),
    Operation("OPTIONS", "/whep/{avatar}", "What may be posted, and the ICE servers", {204: NONE}),
    Operation("DELETE", _VIEWER, "Stop viewing", {200: NONE}, (404,)),
    Operation("PATCH", _VIEWER, "Refused: the answer has all candidates", {}, (422,)),
    Operation("OPTIONS", _VIEWER, "What may be patched", {204: NONE}),
    Operation("GET", "/v1/avatars", "The avatars that may be asked for", {200: _JSON}),
    Operation(
        "GET",
        "/v1/sessions",
        "How many sessions run; with the token, which",
        {200: _JSON},
    ),
    Operation(
        "POST",
        "/v1/sessions",
        "Begin a session that nobody views yet",
        {201: _JSON},
        _BEGINS,
        (_JSON,),
        {"avatar": {"type": "string"}},
    ),
    Operation("GET", _SESSION, "What a session does", {200: _JSON}, (404,)),
    Operation("DELETE", _SESSION, "End a session", {204: NONE}, (404,)),
    Operation(
        "POST",
        f"{_SESSION}/speak",
        "Have the avatar say audio, or a text",
        {202: _JSON},
        (400, 404, 413, 415, 429, 501, 503),
        (_JSON, *_PCM),
        {"text": {"type": "string"}},
        {**_AUDIO, "end": "0 where more audio of the same speech follows"},
    ),
    Operation(
        "POST", f"{_SESSION}/interrupt", "Break off and drop all speech", {204: NONE}, (404,)
    ),
    Operation(
        "GET",
        f"{_SESSION}/events",
        "What happens in a session, as server-sent events",
        {200: "text/event-stream"},
        (404,),
    ),
    Operation(
        "GET",
        f"{_SESSION}/mjpeg",
        "A session's pictures as JPEG files, without sound",
        {200: "multipart/x-mixed-replace"},
        (404,),
    ),
    Operation(
        "GET",
        f"{_SESSION}/socket",
        "A WebSocket: audio and commands in, events out, and pictures and sound where asked for",
        {101: NONE},
        (400, 404),
        query={
            **_AUDIO,
            "media": "1: JPEG files and PCM are sent, too",
            "token": "the token, as browsers cannot send headers here",
        },
    ),
    Operation("GET", "/openapi.json", "This document", {200: _JSON}),
    Operation("GET", "/healthz", "Whether the server answers", {200: _JSON}),
    Operation("GET", "/readyz", "Whether a session could begin", {200: _JSON}, (503,)),
)

_MEANINGS: Final[Mapping[int, str]] = {
    101: "The socket is open",
    200: "Done",
    201: "It has begun; Location says where it is",
    202: "Taken in",
    204: "Done",
    400: "Something in the request is wrong",
    403: "No token, a page that is neither the server's own nor listed, or another name than its",
    404: "There is no such avatar, session or viewer",
    406: "The viewer has no H.264, or no Opus",
    409: "The avatar cannot be used as it is",
    413: "The body is too large",
    415: "The body is of another media type",
    422: "That is not done",
    429: "There is no room; Retry-After says when to ask again, active how many sessions run",
    500: "The server failed; its log has it under incident",
    501: "The server has no voice",
    503: "Not now; Retry-After says when to ask again",
    504: "It took too long",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document of the HTTP API, as a dictionary for ``json.dumps``."""
    paths: dict[str, dict[str, Any]] = {}
    for one in ROUTES:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lipwire", "version": __version__, "summary": "Live sessions"},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "What is wrong (RFC 9457)",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "code": {"type": "string"},
                        "active": {"type": "integer"},
                        "incident": {"type": "string"},
                    },
                }
            },
        },
    }


def _operation(one: Operation) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, kind in one.answers.items():
        answers[str(status)] = _answer(status, kind, {})
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    for status in sorted({*one.problems, 403, 500}):
        answers[str(status)] = _answer(status, PROBLEM, problem)
    parts = [part[1:-1] for part in one.path.split("/") if part.startswith("{")]
    text = {"type": "string"}
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": text} for name in parts),
        *(
            {"name": name, "in": "query", "description": meaning, "schema": text}
            for name, meaning in one.query.items()
        ),
    ]
    made: dict[str, Any] = {"summary": one.summary, "responses": answers}
    if parameters:
        made["parameters"] = parameters
    if one.takes:
        content: dict[str, Any] = {kind: {} for kind in one.takes}
        if one.fields:
            content[_JSON] = {
                "schema": {
                    "type": "object",
                    "required": list(one.fields),
                    "properties": dict(one.fields),
                }
            }
        made["requestBody"] = {"required": True, "content": content}
    if one.method not in ("GET", "OPTIONS") or 101 in one.answers:
        # Not needed for the server's own page.
        made["security"] = [{"token": []}, {}]
    return made


def _answer(status: int, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": _MEANINGS[status]}
    if kind:
        made["content"] = {kind: content}
    return made
