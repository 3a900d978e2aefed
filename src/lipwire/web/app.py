"""The HTTP API of live sessions, and the page.

GET    /                              the page
POST   /whep/{avatar}                 view a new session, or ?session=ID; SDP offer and answer
PATCH, DELETE /whep/{avatar}/{viewer}/{id}
GET    /v1/avatars
GET, POST     /v1/sessions
GET, DELETE   /v1/sessions/{id}
POST   /v1/sessions/{id}/speak        audio, or {"text": ...}; with ?end=0 more of it follows
POST   /v1/sessions/{id}/interrupt
GET    /v1/sessions/{id}/events       server-sent events
GET    /v1/sessions/{id}/mjpeg        pictures alone, for viewers without H.264
WS     /v1/sessions/{id}/socket       audio and commands in, events out, with ?media=1 pictures and
                                      sound, too; see lipwire.web.sockets
GET    /openapi.json, /healthz, /readyz
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from lipwire.domain import InvalidInput, LipwireError, NotFound
from lipwire.security import OPEN, AccessControl
from lipwire.session.live import LiveSession
from lipwire.web.across import AcrossWorkers, WebWorkers
from lipwire.web.audio import NO_VOICE, check_format, check_text, samples_of
from lipwire.web.crossorigin import CrossOrigin
from lipwire.web.events import event_json
from lipwire.web.guard import Guard, access_of, has_token, may_change
from lipwire.web.hub import Hub
from lipwire.web.openapi import document
from lipwire.web.outputs import EventTap, OutputResponse, PictureTap
from lipwire.web.peers import check_offer
from lipwire.web.problems import answering, problem, refuse
from lipwire.web.sockets import SessionSocket

_SDP: Final = "application/sdp"
_MOST_SDP_BYTES: Final = 256 * 1024
_MOST_AUDIO_BYTES: Final = 64 * 1024 * 1024
_MOST_JSON_BYTES: Final = 1024 * 1024
_BOUNDARY: Final = "lipwire-frame"
_PING_S: Final = 15.0

Speak = Callable[[LiveSession, str], None]
"""Has a session say a text; called in a thread of its own."""


def web_app(
    hub: Hub,
    names: Callable[[], Sequence[str]],
    *,
    healthy: Callable[[], bool],
    hosts: Sequence[str],
    token: str,
    origins: Sequence[str] = (),
    control: AccessControl = OPEN,
    speak: Speak | None = None,
    lag_s: Callable[[], float] = lambda: 0.0,
    workers: WebWorkers | None = None,
) -> CrossOrigin:
    """Return the ASGI app of the page and the HTTP API, for the event loop of ``hub``.

    ``names()`` returns the avatars that may be asked for, and ``healthy()`` whether a session could
    begin now. ``hosts`` (names of this server), ``token`` (which lets a request from anywhere
    change something), ``origins`` (of pages that may ask) and ``control`` (which says who asks) are
    as for ``Guard`` and ``CrossOrigin``. ``speak(session, text)`` has a session say a text; None
    where there is no voice. ``lag_s()`` returns by how many seconds the event loop is late.
    ``workers`` are the server's processes; None where it is one.
    """
    api = _Api(hub, names, healthy, speak, lag_s)
    page = files("lipwire") / "web" / "page"
    middleware = [Middleware(Guard, hosts=hosts, token=token, origins=origins, control=control)]
    if workers is not None:
        middleware.append(Middleware(AcrossWorkers, workers=workers))
    app = Starlette(
        routes=[
            # Mounted, as else the page's files would be looked through for other methods.
            Mount(
                "/whep",
                routes=[
                    Route("/{avatar}", api.whep, methods=["POST", "OPTIONS"]),
                    Route(
                        "/{avatar}/{viewer}/{session}",
                        api.viewer,
                        methods=["PATCH", "DELETE", "OPTIONS"],
                    ),
                ],
            ),
            Mount(
                "/v1",
                routes=[
                    Route("/avatars", api.avatars),
                    Route("/sessions", api.sessions, methods=["GET", "POST"]),
                    Route("/sessions/{session}", api.session, methods=["GET", "DELETE"]),
                    Route("/sessions/{session}/speak", api.speak, methods=["POST"]),
                    Route("/sessions/{session}/interrupt", api.interrupt, methods=["POST"]),
                    Route("/sessions/{session}/events", api.events),
                    Route("/sessions/{session}/mjpeg", api.mjpeg),
                    WebSocketRoute("/sessions/{session}/socket", api.socket),
                    WebSocketRoute("/{path:path}", api.no_socket),
                ],
            ),
            Route("/openapi.json", api.openapi),
            Route("/healthz", api.healthz),
            Route("/readyz", api.readyz),
            WebSocketRoute("/{path:path}", api.no_socket),
            Mount("/", StaticFiles(directory=str(page), html=True)),
        ],
        middleware=middleware,
        exception_handlers=dict.fromkeys(
            (LipwireError, HTTPException, Exception),
            answering(lambda: hub.sessions.running),
        ),
    )
    # Outside of everything, so that pages can read of errors, too.
    return CrossOrigin(app, origins=origins)


class _Api:
    def __init__(
        self,
        hub: Hub,
        names: Callable[[], Sequence[str]],
        healthy: Callable[[], bool],
        speak: Speak | None,
        lag_s: Callable[[], float],
    ) -> None:
        self._lag_s = lag_s
        self._hub = hub
        self._names = names
        self._healthy = healthy
        self._speak = speak

    async def whep(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            told = {"Accept-Post": _SDP}
            if may_change(request.scope):  # as credentials for TURN are in it
                told |= self._links()
            return Response(status_code=204, headers=told)
        if _media_type(request) != _SDP:
            return problem(415, f"the body is {_media_type(request)}; allowed is {_SDP}")
        offer = (await _body(request, _MOST_SDP_BYTES)).decode("utf-8", "replace")
        check_offer(offer)
        session_id = request.query_params.get("session")
        avatar = request.path_params["avatar"]
        if session_id:
            session = self._hub.find(session_id, access_of(request.scope))
        else:
            session = await self._hub.open(avatar, access=access_of(request.scope))
        try:
            viewer, answer = await self._hub.view(session, offer)
        except BaseException:
            if not session_id:
                await asyncio.to_thread(self._hub.sessions.end, session)
            raise
        headers = {
            "Location": f"/whep/{avatar}/{viewer}/{session.id}",
            "ETag": f'"{viewer}"',
            **self._links(),
        }
        return Response(answer, 201, headers, media_type=_SDP)

    def _links(self) -> dict[str, str]:
        """The ICE servers, as WHEP has them."""
        links = self._hub.ice.links()
        return {"Link": ", ".join(links)} if links else {}

    async def viewer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(
                status_code=204, headers={"Accept-Patch": "application/trickle-ice-sdpfrag"}
            )
        if request.method == "DELETE":
            await self._hub.leave(request.path_params["viewer"])
            return Response(status_code=200)
        return problem(
            422, "candidates are all in the answer; for an ICE restart, post a new offer"
        )

    async def avatars(self, request: Request) -> Response:
        access = access_of(request.scope)
        names = [name for name in self._names() if access.sees(name)]
        return JSONResponse({"avatars": [{"id": name} for name in names]})

    async def sessions(self, request: Request) -> Response:
        if request.method == "GET":
            stats = self._hub.sessions.stats()
            told: dict[str, Any] = {
                "active": stats.active,
                "most": stats.most,
                "opened": stats.opened,
            }
            if has_token(request.scope):  # an id is all that another page needs to listen in
                access = access_of(request.scope)
                told["sessions"] = [
                    self._told(one)
                    for one in self._hub.sessions.every(access.tenant)
                    if access.sees(one.avatar.name)
                ]
            return JSONResponse(told)
        asked = await _json(request)
        name = asked.get("avatar")
        if not isinstance(name, str):
            raise InvalidInput('the body has no "avatar"; name one')
        session = await self._hub.open(name, access=access_of(request.scope))
        return JSONResponse(self._told(session), 201, {"Location": f"/v1/sessions/{session.id}"})

    async def session(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        if request.method == "DELETE":
            await asyncio.to_thread(self._hub.sessions.end, session)
            return Response(status_code=204)
        return JSONResponse(self._told(session))

    async def speak(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        kind = _media_type(request)
        if kind == "application/json":
            asked = await _json(request)
            text = check_text(asked.get("text"))
            if self._speak is None:
                return problem(501, NO_VOICE)
            await asyncio.to_thread(self._speak, session, text)
            return JSONResponse({"said": text}, 202)
        if kind not in ("audio/pcm", "audio/l16", "application/octet-stream"):
            return problem(
                415,
                f"the body is {kind}; allowed are application/json and audio/pcm (16-bit, little"
                " endian; ?rate= and ?channels=)",
            )
        rate_hz = _number(request, "rate", 16_000)
        channels = _number(request, "channels", 1)
        ends = bool(_number(request, "end", 1))
        check_format(rate_hz, channels)
        pcm = samples_of(await _body(request, _MOST_AUDIO_BYTES), channels)
        await self._hub.audio(session).push(pcm, rate_hz, ends=ends)
        return JSONResponse({"seconds": len(pcm) / rate_hz}, 202)

    async def interrupt(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        await asyncio.to_thread(session.interrupt)
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        tap = EventTap()

        async def told() -> AsyncIterator[str]:
            yield _sse({"type": "session", **self._told(session)})
            while True:
                try:
                    event = await asyncio.wait_for(tap.events.get(), _PING_S)
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
                if event is None:
                    yield _sse({"type": "ended", "reason": session.ended_because})
                    return
                yield _sse(event_json(event))

        return OutputResponse(session, tap, told(), "text/event-stream")

    async def mjpeg(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        tap = PictureTap()

        async def parts() -> AsyncIterator[bytes]:
            yield f"--{_BOUNDARY}\r\n".encode()
            while (data := await tap.next()) is not None:
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                # Browsers show a part when the boundary after it has come.
                yield head.encode() + data + f"\r\n--{_BOUNDARY}\r\n".encode()

        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        return OutputResponse(session, tap, parts(), kind, sessions=self._hub.sessions)

    async def socket(self, socket: WebSocket) -> None:
        try:
            session = self._hub.find(socket.path_params["session"], access_of(socket.scope))
            media = bool(_number(socket, "media", 0))
            serving = SessionSocket(
                socket,
                session,
                self._hub.sessions,
                self._hub.audio(session),
                rate_hz=_number(socket, "rate", 16_000),
                channels=_number(socket, "channels", 1),
                speak=self._speak,
                media=media,
            )
        except LipwireError as error:
            status = 404 if isinstance(error, NotFound) else 400
            await refuse(socket.scope, socket.receive, socket.send, status, str(error))
            return
        with self._hub.watched(session) if media else nullcontext():
            await serving.run({"type": "session", **self._told(session)})

    async def no_socket(self, socket: WebSocket) -> None:
        await refuse(socket.scope, socket.receive, socket.send, 404, "there is no socket here")

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(document())

    async def healthz(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        if await asyncio.to_thread(self._healthy):
            return JSONResponse({"status": "ready", "lag_s": round(self._lag_s(), 4)})
        return problem(503, "no session could begin now", retry_after_s=1.0)

    def _told(self, session: LiveSession) -> dict[str, Any]:
        avatar = session.avatar
        return {
            "id": session.id,
            "avatar": avatar.name,
            "state": session.state.value,
            "width": avatar.width,
            "height": avatar.height,
            "sound_rate": session.settings.sound_rate_hz,
            "viewers": self._hub.viewers(session),
            "frames": session.counts.frames,
            "dropped": session.counts.dropped,
        }


def _sse(data: dict[str, Any]) -> str:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _number(request: HTTPConnection, name: str, default: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    try:
        return int(given)
    except ValueError:
        raise InvalidInput(f"{name} is {given[:50]}; allowed are whole numbers") from None


async def _body(request: Request, most_bytes: int) -> bytes:
    """Raises HTTPException where the body is larger."""
    parts: list[bytes] = []
    size = 0
    told = request.headers.get("content-length", "")
    if told.isdecimal() and int(told[:20]) > most_bytes:
        raise HTTPException(413, f"the body is larger than {most_bytes:,} bytes")
    try:
        async for part in request.stream():
            size += len(part)
            if size > most_bytes:
                raise HTTPException(413, f"the body is larger than {most_bytes:,} bytes")
            parts.append(part)
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off") from None
    return b"".join(parts)


async def _json(request: Request) -> dict[str, Any]:
    data = await _body(request, _MOST_JSON_BYTES)
    try:
        value = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput("the body is no JSON object")
    return value
