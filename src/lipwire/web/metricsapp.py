"""The port on which a server's numbers can be read, and whether it is up."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lipwire.security import OPEN, AccessControl
from lipwire.web.guard import Guard, access_of
from lipwire.web.problems import problem

_NO_CACHE: Final = {"Cache-Control": "no-store"}


def metrics_app(
    read: Callable[[], bytes],
    *,
    ready: Callable[[], bool],
    hosts: Sequence[str],
    control: AccessControl = OPEN,
) -> Starlette:
    """Return the ASGI app of a server's metrics port.

    ``GET /metrics`` answers ``read()``, numbers in Prometheus' text format, to callers who may read
    for all tenants. The other paths are open to everybody who reaches the port: ``/healthz``, which
    says that the process answers; ``/readyz``, 200 where ``ready()`` is true, else 503; and
    ``/readyz/balancer``, 200 or else 404, on which HAProxy (``disable-on-404``) sends no new
    sessions here, but still the requests of sessions that run here. ``read`` and ``ready`` are
    called in other threads. ``hosts`` are the names that the server is reached by, besides
    loopback; ``*`` is any. ``control`` finds out who sends a request and what they may do.
    """

    async def metrics(request: Request) -> Response:
        access = access_of(request.scope)
        if access.tenant or not access.sees_all:
            return problem(403, f"these numbers are of all tenants; {access.subject} is of one")
        text = await asyncio.to_thread(read)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4, headers=_NO_CACHE)

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_NO_CACHE)

    async def readyz(_: Request) -> Response:
        if await asyncio.to_thread(ready):
            return PlainTextResponse("ready\n", headers=_NO_CACHE)
        return problem(503, "the server is starting, stopping, or cannot make mouths now")

    async def balancer(_: Request) -> Response:
        if await asyncio.to_thread(ready):
            return PlainTextResponse("ready\n", headers=_NO_CACHE)
        return problem(404, "nothing new now; sessions that are here go on")

    token = secrets.token_urlsafe(24)  # nobody has it: who asks is for the control to say
    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/readyz/balancer", balancer),
        ],
        middleware=[Middleware(Guard, hosts=hosts, token=token, control=control)],
    )
