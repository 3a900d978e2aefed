"""The HTTP API of live sessions, and the page.

GET    /                              the page
POST   /whep/{avatar}                 view a new session, or ?session=ID; SDP offer and answer
PATCH, DELETE /whep/{avatar}/{viewer}/{id}    candidates that follow; stop viewing
GET    /v1/avatars
POST   /v1/tickets                    a ticket, with which a page opens one session
GET, POST     /v1/sessions
GET, DELETE   /v1/sessions/{id}
POST   /v1/sessions/{id}/speak        audio, or {"text": ...}; with ?end=0 more of it follows
POST   /v1/sessions/{id}/interrupt
GET    /v1/sessions/{id}/events       server-sent events
GET    /v1/sessions/{id}/mjpeg        pictures alone, for viewers without H.264
WS     /v1/sessions/{id}/socket       audio and commands in, events out, with ?media=1 pictures and
                                      sound, too; see lipwire.web.sockets
WS     /v1/socket?avatar=NAME         the same, of a new session
       /v1/render, /v1/renders...     finished videos; see lipwire.web.renders
GET    /openapi.json, /healthz, /readyz
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from importlib.resources import files
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from lipwire.domain import Access, InvalidInput, LipwireError, NotFound, PermissionDenied
from lipwire.domain.names import MAX_NAME_CHARACTERS, canonical_name
from lipwire.renders import Renders, SignedLinks
from lipwire.security import OPEN, AccessControl, Tickets
from lipwire.security.tickets import MINUTES, SECONDS
from lipwire.session.live import LiveSession
from lipwire.web.across import AcrossWorkers, WebWorkers
from lipwire.web.asked import session_of
from lipwire.web.audio import NO_VOICE, check_format, check_text, samples_of
from lipwire.web.bodies import BodyRoom
from lipwire.web.crossorigin import CrossOrigin
from lipwire.web.events import event_json
from lipwire.web.guard import Guard, access_of, has_token, may_change, opened_by
from lipwire.web.hub import Hub
from lipwire.web.identified import Identified
from lipwire.web.measured import Measured, WebFinished
from lipwire.web.openapi import document
from lipwire.web.outputs import EventTap, OutputResponse, PictureTap
from lipwire.web.peers import check_offer
from lipwire.web.problems import answering, problem, refuse, told_of
from lipwire.web.renders import RenderApi
from lipwire.web.requested import avatar_of, json_of, length, media_type, number
from lipwire.web.sockets import SessionSocket
from lipwire.web.ticketed import SECRET_HEADER, Pages
from lipwire.web.trickle import MEDIA_TYPE as TRICKLE
from lipwire.web.trickle import IceRestart, parse_fragment
from lipwire.web.wellformed import WellFormed

_SDP: Final = "application/sdp"
_MOST_SDP_BYTES: Final = 256 * 1024
_MOST_AUDIO_BYTES: Final = 64 * 1024 * 1024
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
    tickets: Tickets | None = None,
    speak: Speak | None = None,
    lag_s: Callable[[], float] = lambda: 0.0,
    workers: WebWorkers | None = None,
    finished: WebFinished | None = None,
    renders: Renders | None = None,
    links: SignedLinks | None = None,
) -> CrossOrigin:
    """Return the ASGI app of the page and the HTTP API, which must be made and run in the event
    loop of ``hub``.

    ``names()`` returns the avatars that may be asked for, and ``healthy()`` whether a session could
    begin now. ``hosts`` are the names that the server is reached by besides loopback (``*`` is
    any); requests with another ``Host`` are refused. ``origins`` are the origins, in lower case
    (such as ``https://app.example.org``; ``*`` is any), of other pages that browsers let send
    requests. ``control`` finds out who sends a request and what they may do. A request that changes
    something has to have ``token`` or a key that ``control`` knows; where ``control`` does not tell
    callers apart, it may also come from the server's own page or one of ``origins`` (not from any
    by ``*``). ``tickets`` issues and checks the tickets with which pages open one session without a
    key; None where this process is the only one of the server. ``speak(session, text)`` has a
    session say a text; None where there is no voice. ``lag_s()`` returns by how many seconds the
    event loop is late. ``workers`` are the processes that share the web port; None where there is
    one only. ``finished(call, status, seconds, access)`` is called at the end of each request, with
    its method and route, its HTTP status, how many seconds it took (None for what lasts as long as
    its client likes), and what its caller may do (None where that was not found out); None for no
    such call. ``renders`` makes and keeps videos, None where the server makes none; ``links``
    checks signed links to them, None where there are none.
    """
    tickets = tickets or Tickets()
    room = BodyRoom()
    videos = RenderApi(
        renders, names, room=room, control=control, links=links, speaks=speak is not None
    )
    api = _Api(hub, names, healthy, speak, lag_s, tickets, Pages(origins, hosts), control, room)
    page = files("lipwire") / "web" / "page"
    middleware = [
        Middleware(WellFormed),
        Middleware(
            Guard,
            hosts=hosts,
            token=token,
            origins=origins,
            control=control,
            tickets=tickets,
            signed=videos.signed,
        ),
    ]
    if finished is not None:
        middleware.insert(0, Middleware(Measured, finished=finished))
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
                    Route("/tickets", api.tickets, methods=["POST"]),
                    Route("/sessions", api.sessions, methods=["GET", "POST"]),
                    Route("/sessions/{session}", api.session, methods=["GET", "DELETE"]),
                    Route("/sessions/{session}/speak", api.speak, methods=["POST"]),
                    Route("/sessions/{session}/interrupt", api.interrupt, methods=["POST"]),
                    Route("/sessions/{session}/events", api.events),
                    Route("/sessions/{session}/mjpeg", api.mjpeg),
                    *videos.routes(),
                    WebSocketRoute("/sessions/{session}/socket", api.socket),
                    WebSocketRoute("/socket", api.new_socket),
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
    # Outside of everything, so that errors have the request's id, and pages can read of them.
    return CrossOrigin(Identified(app), origins=origins)


class _Api:
    def __init__(
        self,
        hub: Hub,
        names: Callable[[], Sequence[str]],
        healthy: Callable[[], bool],
        speak: Speak | None,
        lag_s: Callable[[], float],
        tickets: Tickets,
        pages: Pages,
        control: AccessControl,
        room: BodyRoom,
    ) -> None:
        self._control = control
        self._room = room
        self._lag_s = lag_s
        self._tickets = tickets
        self._pages = pages
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
        if media_type(request) != _SDP:
            return problem(415, f"the body is {media_type(request)}; allowed is {_SDP}")
        offer = await self._sdp(request)
        check_offer(offer)
        session_id = session_of(request.scope)
        avatar = request.path_params["avatar"]
        secret: dict[str, str] = {}
        if session_id:
            session = self._hub.find(session_id, access_of(request.scope))
        else:
            session, secret = await self._opened(request, avatar)
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
            **secret,
        }
        return Response(answer, 201, headers, media_type=_SDP)

    def _links(self) -> dict[str, str]:
        """The ICE servers, as WHEP has them."""
        links = self._hub.ice().links()
        return {"Link": ", ".join(links)} if links else {}

    async def viewer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"Accept-Patch": TRICKLE})
        viewer, session = request.path_params["viewer"], request.path_params["session"]
        access = access_of(request.scope)
        if request.method == "DELETE":
            await self._hub.leave(viewer, session, access)
            return Response(status_code=200)
        peer = self._hub.peer(viewer, session, access)
        if media_type(request) != TRICKLE:
            return problem(415, f"the body is {media_type(request)}; allowed is {TRICKLE}")
        if request.headers.get("if-match", "*") not in ("*", f'"{viewer}"'):
            return problem(412, "If-Match is not the viewer's ETag")
        fragment = await self._sdp(request)
        try:
            await peer.trickle(parse_fragment(fragment))
        except IceRestart as error:
            return problem(422, str(error))
        return Response(status_code=204)

    async def _sdp(self, request: Request) -> str:
        async with self._room.body(request, self._control, _MOST_SDP_BYTES) as data:
            return data.decode("utf-8", "replace")

    async def _json(self, request: Request) -> dict[str, Any]:
        return await json_of(request, self._control, self._room)

    async def avatars(self, request: Request) -> Response:
        names = self._seen(access_of(request.scope))
        return JSONResponse({"avatars": [{"id": name} for name in names]})

    def _seen(self, access: Access) -> list[str]:
        """The names of the avatars that there are for the caller with ``access``."""
        return [name for name in self._names() if access.sees(name)]

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
        name = avatar_of(await self._json(request))
        session, secret = await self._opened(request, name)
        headers = {"Location": f"/v1/sessions/{session.id}", **secret}
        return JSONResponse(self._told(session), 201, headers)

    async def _opened(
        self, request: HTTPConnection, avatar: str
    ) -> tuple[LiveSession, dict[str, str]]:
        """A new session, and the header with its secret where it was opened with a ticket."""
        ticket = opened_by(request.scope)
        session = await self._hub.open(
            avatar,
            access=access_of(request.scope),
            lasts_s=None if ticket is None else ticket.lasts_s,
        )
        if ticket is None:
            return session, {}
        try:
            secret = await asyncio.to_thread(self._tickets.secret, ticket, session.id)
        except BaseException:
            await asyncio.to_thread(self._hub.sessions.end, session)
            raise
        self._hub.sessions.when_ended(session, partial(self._tickets.forget, secret))
        return session, {SECRET_HEADER: secret, "Cache-Control": "no-store"}

    async def tickets(self, request: Request) -> Response:
        if not has_token(request.scope):
            raise PermissionDenied(
                "a ticket is for whoever shows who they are: send the token, or an API key"
            )
        asked = await self._json(request)
        name = avatar_of(asked)
        origin = self._pages.checked(asked.get("origin"))
        seconds, minutes = length(asked, "seconds", SECONDS), length(asked, "minutes", MINUTES)
        access = access_of(request.scope)
        if canonical_name(name) not in map(canonical_name, self._seen(access)):
            raise NotFound(f"no avatar named {canonical_name(name)[:MAX_NAME_CHARACTERS]}")
        ticket = await asyncio.to_thread(
            partial(self._tickets.issue, access, name, origin, seconds=seconds, minutes=minutes)
        )
        told = {
            "ticket": ticket,
            "avatar": name,
            "origin": origin,
            "seconds": seconds,
            "minutes": minutes,
        }
        return JSONResponse(told, 201, {"Cache-Control": "no-store"})

    async def session(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        if request.method == "DELETE":
            await asyncio.to_thread(self._hub.sessions.end, session)
            return Response(status_code=204)
        return JSONResponse(self._told(session))

    async def speak(self, request: Request) -> Response:
        session = self._hub.find(request.path_params["session"], access_of(request.scope))
        kind = media_type(request)
        if kind == "application/json":
            asked = await self._json(request)
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
        rate_hz = number(request, "rate", 16_000)
        channels = number(request, "channels", 1)
        ends = bool(number(request, "end", 1))
        check_format(rate_hz, channels)
        async with self._room.body(request, self._control, _MOST_AUDIO_BYTES) as data:
            pcm = samples_of(data, channels)
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
            await self._serve(socket, session, {})
        except LipwireError as error:
            await self._refused(socket, error)

    async def new_socket(self, socket: WebSocket) -> None:
        """Begin a session, which the socket is of."""
        try:
            name = socket.query_params.get("avatar")
            if not name:
                raise InvalidInput("the address has no ?avatar=; name one")
            session, headers = await self._opened(socket, name)
            secret = headers.get(SECRET_HEADER)
            told = False
            try:
                more = {} if secret is None else {"token": secret}
                told = await self._serve(socket, session, more)
            finally:
                if not told:  # nobody else knows of it
                    await asyncio.to_thread(self._hub.sessions.end, session)
        except LipwireError as error:
            await self._refused(socket, error)

    async def _refused(self, socket: WebSocket, error: LipwireError) -> None:
        told = told_of(error, socket.url.path, lambda: self._hub.sessions.running)
        await refuse(socket.scope, socket.receive, socket.send, told)

    async def _serve(
        self, socket: WebSocket, session: LiveSession, more: Mapping[str, str]
    ) -> bool:
        """Serve a client's socket of ``session``, which is told ``more`` of it first; whether it
        was."""
        media = bool(number(socket, "media", 0))
        serving = SessionSocket(
            socket,
            session,
            self._hub.sessions,
            self._hub.audio(session),
            rate_hz=number(socket, "rate", 16_000),
            channels=number(socket, "channels", 1),
            speak=self._speak,
            media=media,
            upload=partial(self._control.upload, access_of(socket.scope)),
            hold=partial(self._room.hold, access_of(socket.scope).counts_for),
        )
        with self._hub.watched(session) if media else nullcontext():
            return await serving.run({"type": "session", **self._told(session), **more})

    async def no_socket(self, socket: WebSocket) -> None:
        await self._refused(socket, NotFound("there is no socket here"))

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
