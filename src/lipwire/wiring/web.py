"""The page and its HTTP API, over the live sessions of a server."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from starlette.types import ASGIApp

from lipwire.config.compositing import WebSettings
from lipwire.config.values import is_loopback
from lipwire.domain import InvalidInput, Tell, Unavailable
from lipwire.session.live import LiveSessions
from lipwire.web.app import Speak, web_app
from lipwire.web.hub import Hub
from lipwire.web.peers import IceServers
from lipwire.web.server import WebServer


@contextmanager
def open_web(
    web: WebSettings,
    sessions: LiveSessions,
    names: Callable[[], Sequence[str]],
    *,
    healthy: Callable[[], bool],
    tell: Tell,
    speak: Speak | None = None,
) -> Iterator[WebServer]:
    """Give the web server that ``web`` describes, listening, and stop it after the block. ``names``
    are the avatars that may be asked for, ``healthy`` whether a session could begin. ``speak`` is
    as for ``web_app``. Raises Unavailable where the address is taken, and InvalidInput where others
    reach it and there is no token for them."""
    check_web(web)
    token = web.token or secrets.token_urlsafe(24)
    ice = IceServers(
        web.ice.urls, web.ice.username, web.ice.credential, relay_only=web.ice.relay_only
    )
    hubs: list[Hub] = []

    def make() -> ASGIApp:
        hub = Hub(sessions, ice)
        hubs.append(hub)
        return web_app(
            hub,
            names,
            healthy=healthy,
            hosts=[*web.hosts, web.host],
            token=token,
            speak=speak,
            lag_s=lambda: servers[0].lag_s if servers else 0.0,
        )

    servers: list[WebServer] = []
    with _listening(web, make, hubs) as server:
        servers.append(server)
        told: dict[str, object] = {"Page": f"http://{_shown(web.host)}:{server.port}/"}
        if server.port != web.port and web.port:
            told["Port"] = f"{web.port} is taken by another program (--web-port N chooses one)"
        if web.token is None:
            told["Token"] = token
        tell("Web", told)
        yield server


def _listening(web: WebSettings, make: Callable[[], ASGIApp], hubs: list[Hub]) -> WebServer:
    """The web server on its port, or on any where that is taken and nobody asked for it."""

    def listen(port: int) -> WebServer:
        return WebServer(
            make, host=web.host, port=port, on_stop=lambda: hubs[0].close() if hubs else None
        )

    try:
        return listen(web.port)
    except Unavailable:
        if "port" in web.model_fields_set:
            raise
        return listen(0)


def check_web(web: WebSettings) -> None:
    """Raise InvalidInput where other machines reach ``web.host`` and ``web.token`` is not set: the
    token that a start makes is in the log alone."""
    if web.token is None and not is_loopback(web.host):
        raise InvalidInput(
            f"web.host is {web.host}, which other machines reach, and web.token is not set; set it"
            " (16 characters or more), or leave web.host at 127.0.0.1"
        )


def _shown(host: str) -> str:
    return "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
