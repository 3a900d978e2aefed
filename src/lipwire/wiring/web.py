"""The page and its HTTP API, over the live sessions of a server."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TypeVar

from starlette.types import ASGIApp

from lipwire.config.compositing import IceSettings, WebSettings
from lipwire.config.values import is_loopback
from lipwire.domain import InvalidInput, Tell, Unavailable
from lipwire.observe.metrics import ServerMetrics
from lipwire.rpc.credentials import ServerTls
from lipwire.rpc.server.ports import held_port
from lipwire.rpc.workers import WorkerPlace
from lipwire.security import OPEN, AccessControl, FolderStore, Tickets
from lipwire.security.shared.tickettexts import SharedTexts
from lipwire.session.live import LiveSessions
from lipwire.stores import RedisConnection
from lipwire.web.across import WebWorkers
from lipwire.web.app import Speak, web_app
from lipwire.web.hub import Hub
from lipwire.web.ice import IceServers
from lipwire.web.server import OTHER_PORT, WebServer, family_of
from lipwire.wiring.measuring import measure_web
from lipwire.wiring.renders import OpenedRenders

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
    metrics: ServerMetrics | None = None,
    redis: RedisConnection | None = None,
    renders: OpenedRenders | None = None,
) -> Iterator[WebServer]:
    """Give the ``with`` block the web server that ``web`` describes, listening, and stop it
    afterwards. A context manager.

    ``sessions`` are the live sessions that it shows. ``names()`` returns the avatars that may be
    asked for, ``healthy()`` whether a session could begin now. ``speak(session, text)`` has a
    session say a text, None where there is no voice; ``control`` decides who may ask for what.
    ``tell(heading, facts)`` is called for people who start the server, with a heading and a mapping
    of names to values, such as the page's address. ``tls`` is the server's certificate; without one
    nothing is encrypted. ``place`` is that of this process among those that share the port, which
    ``shared_web`` keeps for them; None where it is alone. ``counts()`` returns how many sessions
    each process has, by its number; it is not called without a ``place``. ``metrics`` counts
    requests and viewers; None where nobody measures. Tickets are accepted by all servers that share
    ``redis``; None: by this one. ``renders`` are the finished videos that can be ordered; None
    where none are made.

    Where the port is taken, another one is used, unless the configuration names it: then
    Unavailable is raised. Raises InvalidInput where other machines reach the server and nobody
    there could show who they are (``check_web``), or the files of ``tls`` are no certificate.
    """
    check_web(web, closed=control.closed)
    token = web.token or _new_token()
    ice = _ice_servers(web.ice)
    hubs: list[Hub] = []
    workers = None
    store = None if place is None else FolderStore(place.folder / "tickets")
    tickets = Tickets(store, None if redis is None else SharedTexts(redis))
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
            tickets=tickets,
            speak=speak,
            lag_s=lambda: servers[0].lag_s if servers else 0.0,
            workers=workers,
            finished=None if metrics is None else partial(metrics.call, "http"),
            renders=None if renders is None else renders.renders,
            links=None if renders is None else renders.links,
        )

    def listen(port: int) -> WebServer:
        return WebServer(
            make,
            host=web.host,
            port=port,
            on_stop=lambda: hubs[0].close() if hubs else None,
            among=None if place is None else place.web_socket(),
            certificate=None if tls is None else (tls.cert, tls.key),
            most_connections=web.max_connections,
        )

    servers: list[WebServer] = []
    with _on_a_port(web, listen) as server:
        servers.append(server)
        if metrics is not None:
            measure_web(
                metrics,
                viewers=lambda: sum(hub.all_viewers for hub in hubs),
                lag_s=lambda: server.lag_s,
            )
        told = None if control.closed else token
        _tell(web, server.port, told, tell, "http" if tls is None else "https")
        yield server


@contextmanager
def shared_web(
    web: WebSettings, *, tell: Tell, closed: bool = False, encrypted: bool = False
) -> Iterator[dict[str, str]]:
    """Keep the port of ``web`` for several processes that listen on it, during the ``with`` block.
    A context manager. Gives environment variables (name to value) with which each of the processes
    has that port and the same token, which the server shows to who starts it and callers bring.

    ``tell(heading, facts)`` is called for people who start the server, with a heading and a mapping
    of names to values, such as the page's address. ``closed`` says whether callers are told apart
    by keys, tokens or certificates, and ``encrypted`` whether the server has a certificate. Where
    the port is taken, another one is used, unless the configuration names it: then Unavailable is
    raised. Raises InvalidInput where other machines reach the server and nobody there could show
    who they are (``check_web``).
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
        _tell(web, port, None if closed else token, tell, "https" if encrypted else "http")
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


def _tell(web: WebSettings, port: int, token: str | None, tell: Tell, scheme: str) -> None:
    """Tell where the page is, and ``token`` where this start has made it. None is for callers who
    are told apart: they show keys of their own, and the token may do everything."""
    told: dict[str, object] = {"Page": f"{scheme}://{_shown(web.host)}:{port}/"}
    if port != web.port and web.port:
        told["Port"] = f"{web.port} is taken by another program (--web-port N chooses one)"
    if web.token is None and token is not None:
        told["Token"] = token
    tell("Web", told)


def _ice_servers(ice: IceSettings) -> IceServers:
    credential, secret = (
        None if each is None else each.get_secret_value() for each in (ice.credential, ice.secret)
    )
    return IceServers(ice.urls, ice.username, credential, ice.relay_only, secret)


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def check_web(web: WebSettings, *, closed: bool = False) -> None:
    """Check that callers of the web server of ``web`` have to show who they are. Raises
    InvalidInput where other machines reach ``web.host``, ``web.token`` is not set (a token that is
    made at the start is in the log alone), and ``closed`` is False. ``closed`` says whether callers
    are told apart by keys, tokens or certificates."""
    if web.token is None and not closed and not is_loopback(web.host):
        raise InvalidInput(
            f"web.host is {web.host}, which other machines reach, and web.token is not set; set it"
            " (16 characters or more), or leave web.host at 127.0.0.1"
        )


def _shown(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
