"""The HTTP API on loopback, over live sessions whose time tests move themselves."""

import asyncio
import http.client
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import cv2
import numpy as np
from tests.support.liveparts import FakeAvatar, LiveTime

from lipwire.domain import AvatarInvalid, Call, NotFound, UInt8Array
from lipwire.renders import Renders, SignedLinks
from lipwire.rpc.workers import WorkerPlace
from lipwire.rpc.workers.sessioncount import SharedCount
from lipwire.security import OPEN, AccessControl, FolderStore, LiveMinutes, Tickets
from lipwire.session.live import LiveAvatar, LiveSession, LiveSessions, LiveThreads, SessionRules
from lipwire.web.across import WebWorkers
from lipwire.web.app import Speak, web_app
from lipwire.web.hub import Hub
from lipwire.web.ice import IceServers
from lipwire.web.measured import WebFinished
from lipwire.web.server import WebServer

TOKEN: Final = "a token for tests only"
SIZE: Final = 64
"""Width and height of the frames."""


def planes(position: int, mouth: UInt8Array | None, out: UInt8Array | None = None) -> UInt8Array:
    """A frame that is as bright as its mouth, and has a corner that changes with the position."""
    shade = 128 if mouth is None else int(mouth.mean())
    made = np.full((SIZE * 3 // 2, SIZE), 128, np.uint8)
    made[:SIZE] = shade
    made[:8, :8] = position * 40 % 256
    return made


def jpeg(position: int, mouth: UInt8Array | None) -> bytes:
    """The same as a JPEG file."""
    pixels = cv2.cvtColor(planes(position, mouth), cv2.COLOR_YUV2BGR_I420)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


@dataclass(frozen=True)
class Answer:
    """What a server answers."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Asked:
    """What listens on a port of this machine, and is asked there."""

    port: int

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: str | None = TOKEN,
    ) -> Answer:
        """Ask once, over a connection of its own. A mapping is sent as JSON."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        if isinstance(body, Mapping):
            body = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            given = connection.getresponse()
            told = {name.lower(): value for name, value in given.getheaders()}
            return Answer(given.status, told, given.read())
        finally:
            connection.close()


class WebHouse(Asked):
    """A server and its sessions. A context manager."""

    def __init__(
        self,
        rules: SessionRules | None = None,
        *,
        speak: Speak | None = None,
        ice: IceServers | None = None,
        threads: LiveThreads | None = None,
        open_avatar: Callable[[str], LiveAvatar] | None = None,
        place: WorkerPlace | None = None,
        origins: Sequence[str] = (),
        control: AccessControl = OPEN,
        certificate: tuple[Path, Path] | None = None,
        tickets: Tickets | None = None,
        minutes: LiveMinutes | None = None,
        finished: WebFinished | None = None,
        renders: Renders | None = None,
        links: SignedLinks | None = None,
    ) -> None:
        """With ``threads`` time is that of the clock on the wall, and nobody moves it.
        ``open_avatar`` makes an avatar of that name. ``place`` is that among other servers, as
        processes of one have it; each listens on a port of its own here, so that it can be asked
        and no other."""
        self.count = None if place is None else SharedCount(place)
        if place is not None and tickets is None:
            tickets = Tickets(FolderStore(place.folder / "tickets"))
        self.time = LiveTime()
        clock: Callable[[], float] = self.time.clock if threads is None else time.monotonic
        self._open_avatar = open_avatar
        self.avatars: list[FakeAvatar] = []
        self.sessions = LiveSessions(
            self._open,
            threads or self.time.threads,
            rules=rules,
            count=self.count,
            prefix="" if place is None else place.session_prefix,
            minutes=minutes,
            clock=clock,
        )
        workers = None
        if place is not None and self.count is not None:
            others = {index: place.web_socket(index) for index in place.others}
            workers = WebWorkers(place.index, others, place.owner_of, self.count.each)
        self.healthy: Callable[[], bool] = lambda: True
        self.raw = False
        """Whether frames are pixels in place of JPEG files."""
        self._hubs: list[Hub] = []

        def make() -> Any:
            self.loop = asyncio.get_running_loop()
            hub = Hub(self.sessions, ice or IceServers(), clock=clock)
            self._hubs.append(hub)
            return web_app(
                self.hub,
                lambda: ["anna", "bert"],
                healthy=lambda: self.healthy(),
                hosts=["x"],
                token=TOKEN,
                origins=origins,
                control=control,
                tickets=tickets,
                speak=speak,
                workers=workers,
                finished=finished,
                renders=renders,
                links=links,
            )

        self.server = WebServer(
            make,
            host="127.0.0.1",
            port=0,
            on_stop=lambda: self.hub.close(),
            among=None if place is None else place.web_socket(),
            certificate=certificate,
        )

    @property
    def hub(self) -> Hub:
        return self._hubs[0]

    @property
    def port(self) -> int:  # type: ignore[override]
        return self.server.port

    def open(self, avatar: str = "anna") -> str:
        """Begin a session, and return its id."""
        answer = self.ask("POST", "/v1/sessions", {"avatar": avatar})
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def session(self, session_id: str) -> LiveSession:
        return self.sessions.find(session_id)

    def in_loop(self, wanted: Coroutine[Any, Any, Any]) -> Any:
        """Await something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(wanted, self.loop).result(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop it; twice is allowed."""
        self.sessions.close()
        self.server.close()
        if self.count is not None:
            self.count.close()
            self.count = None

    def _open(self, model_id: str, call: Call) -> LiveAvatar:
        if self._open_avatar is not None:
            return self._open_avatar(model_id)
        if model_id == "broken":
            raise AvatarInvalid("avatar broken has no frames")
        if model_id not in ("anna", "bert"):
            raise NotFound(f"there is no avatar {model_id}")
        avatar = FakeAvatar()
        self.avatars.append(avatar)
        live = avatar.live()

        def compose(position: int, mouth: UInt8Array | None) -> bytes:
            if not self.raw:
                return jpeg(position, mouth)
            i420 = planes(position, mouth)
            return cv2.cvtColor(i420, cv2.COLOR_YUV2BGR_I420).tobytes()

        return replace(live, name=model_id, width=SIZE, height=SIZE, compose=compose, planes=planes)
