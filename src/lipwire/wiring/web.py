"""The page and its HTTP API, over the live sessions of a server."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from starlette.types import ASGIApp

from lipwire.config.compositing import WebSettings
from lipwire.config.values import is_loopback
from lipwire.domain import InvalidInput, Tell, Unavailable
from lipwire.rpc.credentials import ServerTls
from lipwire.rpc.server.ports import held_port
from lipwire.rpc.workers import WorkerPlace
from lipwire.security import OPEN, AccessControl
from lipwire.session.live import LiveSessions
from lipwire.web.across import WebWorkers
from lipwire.web.app import Speak, web_app
from lipwire.web.hub import Hub
from lipwire.web.peers import IceServers
from lipwire.web.server import OTHER_PORT, WebServer, family_of

_Listening = TypeVar("_Listening")


@contextmanager
def open_web(
    web: WebSettings,
    sessions: LiveSessions,
    names: Callable[[], Sequence[str]],
    *,
    healthy: Callable[[], bool],
    tell: Tell,
    speak: Speak | None = None,
    control: AccessControl = OPEN,
    tls: ServerTls | None = None,
    place: WorkerPlace | None = None,
    counts: Callable[[], Mapping[int, int]] = dict,
) -> Iterator[WebServer]:
    """Give the ``with`` block the web server that ``web`` describes, listening, and stop it
    afterwards. A context manager.

    ``sessions`` are the live sessions that it shows. ``names()`` returns the avatars that may be
    asked for, ``healthy()`` whether a session could begin now. ``speak(session, text)`` has a
    session say a text, None where there is no voice; ``control`` says who asks. ``tell`` is called
    with a heading and facts. ``tls`` is the server's certificate; without one nothing is encrypted.
    ``place`` is that of this process among those that share the port, as ``shared_web`` has it;
    None where it is alone. ``counts()`` returns how many sessions each process has, by its number.
    Raises Unavailable where the address is taken, and InvalidInput where other machines reach it
    and there is no token for them.
    """
    check_web(web, closed=control.closed)
    token = web.token or _new_token()
    secret = web.ice.credential
    ice = IceServers(
        web.ice.urls,
        web.ice.username,
        None if secret is None else secret.get_secret_value(),
        relay_only=web.ice.relay_only,
    )
    hubs: list[Hub] = []
    workers = None
    if place is not None:
        others = {index: place.web_socket(index) for index in place.others}
        workers = WebWorkers(place.index, others, place.owner_of, counts)

    def make() -> ASGIApp:
        hub = Hub(sessions, ice)
        hubs.append(hub)
        return web_app(
            hub,
            names,
            healthy=healthy,
            hosts=[*web.hosts, web.host],
            token=token,
            origins=web.allowed_origins,
            control=control,
            speak=speak,
            lag_s=lambda: servers[0].lag_s if servers else 0.0,
            workers=workers,
        )

    def listen(port: int) -> WebServer:
        return WebServer(
            make,
            host=web.host,
            port=port,
            on_stop=lambda: hubs[0].close() if hubs else None,
            among=None if place is None else place.web_socket(),
            certificate=None if tls is None else (tls.cert, tls.key),
        )

    servers: list[WebServer] = []
    with _on_a_port(web, listen) as server:
        servers.append(server)
        _tell(web, server.port, token, tell, "http" if tls is None else "https")
        yield server


@contextmanager
def shared_web(
    web: WebSettings, *, tell: Tell, closed: bool = False, encrypted: bool = False
) -> Iterator[dict[str, str]]:
    """Keep the port of ``web`` for several processes that listen on it, during the ``with`` block.
    A context manager. Gives environment variables (name to value) with which each of the processes
    has that port and the same token.

    ``tell`` is called with a heading and facts. ``closed`` says whether callers are told apart by
    keys, and ``encrypted`` whether the server has a certificate. Raises Unavailable where the
    address is taken, and InvalidInput where other machines reach it and there is no token for them.
    """
    check_web(web, closed=closed)
    token = web.token or _new_token()

    with ExitStack() as stack:

        def hold(port: int) -> int:
            try:
                return stack.enter_context(
                    held_port(web.host, port, family=family_of(web.host), key="web.host")
                )
            except Unavailable as error:
                raise Unavailable(f"{error}; {OTHER_PORT}") from None

        port = _on_a_port(web, hold)
        _tell(web, port, token, tell, "https" if encrypted else "http")
        yield {
            "LIPWIRE_COMPOSITING__WEB__PORT": str(port),
            "LIPWIRE_COMPOSITING__WEB__TOKEN": token,
        }


def _on_a_port(web: WebSettings, listen: Callable[[int], _Listening]) -> _Listening:
    """What ``listen`` returns for its port, or for any where that is taken and nobody asked for
    it."""
    try:
        return listen(web.port)
    except Unavailable:
        if "port" in web.model_fields_set:
            raise
        return listen(0)


def _tell(web: WebSettings, port: int, token: str, tell: Tell, scheme: str) -> None:
    told: dict[str, object] = {"Page": f"{scheme}://{_shown(web.host)}:{port}/"}
    if port != web.port and web.port:
        told["Port"] = f"{web.port} is taken by another program (--web-port N chooses one)"
    if web.token is None:
        told["Token"] = token
    tell("Web", told)


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def check_web(web: WebSettings, *, closed: bool = False) -> None:
    """Raise InvalidInput where other machines reach ``web.host``, ``web.token`` is not set, and
    callers are not told apart otherwise (``closed``): the token that a start makes is in the log
    alone."""
    if web.token is None and not closed and not is_loopback(web.host):
        raise InvalidInput(
            f"web.host is {web.host}, which other machines reach, and web.token is not set; set it"
            " (16 characters or more), or leave web.host at 127.0.0.1"
        )


def _shown(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
