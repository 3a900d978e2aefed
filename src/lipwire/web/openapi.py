"""What the HTTP API looks like, as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0).

``ROUTES`` is the table that it is made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lipwire import __version__
from lipwire.renders import FORMATS
from lipwire.security.tickets import MINUTES, MOST_MINUTES, MOST_SECONDS, SECONDS
from lipwire.web.problems import PROBLEM
from lipwire.web.renders import MP4, PLAYLIST, SEGMENTS
from lipwire.web.trickle import MEDIA_TYPE as TRICKLE

_JSON: Final = "application/json"
_SDP: Final = "application/sdp"
_PCM: Final = ("audio/pcm", "audio/l16", "application/octet-stream")

NONE: Final = ""
"""The media type of an answer without a body."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path of the HTTP API, as its OpenAPI document describes it: the media types
    of successful answers by status, the statuses of failures besides 403 and 500, the media types
    that a body may have, the members of a JSON body as JSON Schema (``fields``, which are required,
    and ``more``, which are not), and what query parameters and headers mean, by name."""

    method: str
    path: str
    summary: str
    answers: Mapping[int, str | tuple[str, ...]]
    """The media types of what succeeds, by status; several where the request decides."""
    problems: tuple[int, ...] = ()
    """Statuses of what fails; besides 403 and 500, which everything may."""
    takes: tuple[str, ...] = ()
    """The media types of its body."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """The members of its JSON body, as JSON Schema; all of them are needed."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Those that may be left out."""
    query: Mapping[str, str] = field(default_factory=dict)
    """What may follow the path, and what it means."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers that may be sent, and what they mean."""


_AUDIO: Final = {
    "rate": "samples a second of PCM; 16000 without it",
    "channels": "channels of PCM; 1 without it",
}
_BEGINS: Final = (400, 402, 404, 408, 409, 413, 429, 503, 504)
_VIEWER: Final = "/whep/{avatar}/{viewer}/{session}"
_SESSION: Final = "/v1/sessions/{session}"
_RENDER: Final = "/v1/renders/{render}"
_LINK: Final = {
    "expires": "of a signed link",
    "key": "of a signed link",
    "signature": "of a signed link, with which no key or token is needed",
}

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
    Operation(
        "OPTIONS",
        "/whep/{avatar}",
        "What may be posted, and the ICE servers",
        {204: NONE},
        (404,),
    ),
    Operation("DELETE", _VIEWER, "Stop viewing", {200: NONE}, (404,)),
    Operation(
        "PATCH",
        _VIEWER,
        "Add candidates of the viewer (trickle ICE)",
        {204: NONE},
        (400, 404, 408, 412, 413, 415, 422, 429),
        (TRICKLE,),
    ),
    Operation("OPTIONS", _VIEWER, "What may be patched", {204: NONE}, (404,)),
    Operation("GET", "/v1/avatars", "The avatars that may be asked for", {200: _JSON}),
    Operation(
        "POST",
        "/v1/tickets",
        "A ticket, with which a page of one origin opens one session with an avatar",
        {201: _JSON},
        (400, 401, 404, 408, 413, 429),
        (_JSON,),
        {
            "avatar": {"type": "string"},
            "origin": {"type": "string", "description": "of the page, as https://app.example.org"},
        },
        more={
            "seconds": {
                "type": "number",
                "minimum": 1,
                "maximum": MOST_SECONDS,
                "default": SECONDS,
                "description": "within which the session has to be opened",
            },
            "minutes": {
                "type": "number",
                "minimum": 1,
                "maximum": MOST_MINUTES,
                "default": MINUTES,
                "description": "for which the session may last",
            },
        },
    ),
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
        (400, 404, 408, 413, 415, 429, 501, 503),
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
    Operation(
        "GET",
        "/v1/socket",
        "The same WebSocket, of a new session",
        {101: NONE},
        _BEGINS,
        query={
            "avatar": "the name of the avatar",
            **_AUDIO,
            "media": "1: JPEG files and PCM are sent, too",
            "token": "the token or a ticket, as browsers cannot send headers here",
        },
    ),
    Operation(
        "POST",
        "/v1/render",
        "Order a video in which an avatar says a text, or audio",
        {202: _JSON},
        (400, 404, 408, 413, 415, 422, 429, 501, 507),
        (_JSON, *_PCM),
        {"avatar": {"type": "string"}, "text": {"type": "string"}},
        query={
            **_AUDIO,
            "avatar": "the name of the avatar, with audio",
            "format": "mp4 (without it) or hls, with audio",
            "start_frame": "the avatar's frame to begin with, with audio",
            "webhook": "a URL that is told of the end, with audio",
        },
        more={
            "format": {"type": "string", "enum": list(FORMATS), "default": "mp4"},
            "start_frame": {"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 0},
            "webhook": {"type": "string", "description": "a URL that is told of the end"},
        },
        headers={"Idempotency-Key": "the same order with the same key is the same render"},
    ),
    Operation(
        "GET",
        "/v1/renders",
        "The renders of the caller's tenant, newest first",
        {200: _JSON},
        (400, 404),
        query={
            "most": "how many, 1 to 1000; 100 without it",
            "before": "the id of a render: older ones follow",
        },
    ),
    Operation(
        "DELETE",
        "/v1/renders",
        "Remove all renders of a tenant",
        {200: _JSON},
        (400, 404),
        query={"tenant": "whose, for callers without a tenant"},
    ),
    Operation("GET", _RENDER, "How a render does, and where its video is", {200: _JSON}, (404,)),
    Operation(
        "DELETE",
        _RENDER,
        "Cancel a render that has not ended, or remove one that has",
        {204: NONE},
        (404,),
    ),
    *(
        Operation(
            "GET",
            f"{_RENDER}/{name}",
            what,
            {200: kind, 304: NONE}
            if kind == PLAYLIST
            else {200: kind, 206: (kind, "multipart/byteranges"), 304: NONE},
            (404,) if kind == PLAYLIST else (404, 416),
            query=_LINK,
            headers={} if kind == PLAYLIST else {"Range": "parts of the file, as bytes=0-1023"},
        )
        for name, kind, what in (
            ("video.mp4", MP4, "The video of a render, whole or in parts"),
            ("video.m3u8", PLAYLIST, "The playlist of a render of the format hls"),
            ("video.m4s", SEGMENTS, "The segments that the playlist names, in one file"),
        )
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
    206: "The part that was asked for",
    304: "It is what the client has",
    400: "Something in the request is wrong",
    401: "It is not known who asks",
    402: "The minutes of live sessions of this month are used up",
    403: "No token, a page that is neither the server's own nor listed, or another name than its",
    404: "There is no such avatar, session, viewer or render",
    406: "The viewer has no H.264, or no Opus",
    409: "The avatar cannot be used as it is",
    412: "If-Match is not the viewer's ETag",
    408: "The body did not come in time",
    413: "The body is too large",
    415: "The body is of another media type",
    416: "The video has no such part",
    422: "An ICE restart needs a new offer; the Idempotency-Key is that of another order",
    429: "There is no room; Retry-After says when to ask again, active how many sessions run, or"
    " waiting how many renders wait",
    500: "The server failed; its log has it under incident",
    501: "The server has no voice",
    503: "Not now; Retry-After says when to ask again",
    504: "It took too long",
    507: "The disk, or its budget, has no room",
}


def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the HTTP API, as a dictionary for ``json.dumps``; a new
    one each time."""
    paths: dict[str, dict[str, Any]] = {}
    for one in ROUTES:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lipwire",
            "version": __version__,
            "summary": "Live sessions, and finished videos",
        },
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
                        "request_id": {"type": "string"},
                        "active": {"type": "integer"},
                        "waiting": {"type": "integer"},
                        "violated-policies": {"type": "array", "items": {"type": "string"}},
                        "used_minutes": {"type": "number"},
                        "allowed_minutes": {"type": "number"},
                        "incident": {"type": "string"},
                    },
                }
            },
        },
    }


def _operation(one: Operation) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for status, kinds in one.answers.items():
        answers[str(status)] = _answer(status, kinds, {})
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
        *(
            {"name": name, "in": "header", "description": meaning, "schema": text}
            for name, meaning in one.headers.items()
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
                    "properties": {**one.fields, **one.more},
                }
            }
        made["requestBody"] = {"required": True, "content": content}
    if one.method not in ("GET", "OPTIONS") or 101 in one.answers:
        # Not needed for the server's own page.
        made["security"] = [{"token": []}, {}]
    return made


def _answer(status: int, kinds: str | tuple[str, ...], content: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": _MEANINGS[status]}
    if kinds:
        each = (kinds,) if isinstance(kinds, str) else kinds
        made["content"] = dict.fromkeys(each, content)
    return made
