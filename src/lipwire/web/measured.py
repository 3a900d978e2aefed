"""Requests of the web, as they are counted and timed."""

import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipwire.domain import Access
from lipwire.web.asked import route_of
from lipwire.web.guard import access_of
from lipwire.web.passing import is_passed_on

WebFinished = Callable[[str, str, float | None, Access | None], object]
"""Called as (call, status, seconds, access) when a request has ended: its method and route, its
HTTP status, how long it took (None for what lasts as long as its client likes), and what its caller
may do, None where that was not found out."""

_GONE: Final = "499"
"""The status of a request whose client has gone before it had an answer."""
_LASTING: Final = frozenset({"events", "socket", "mjpeg", "video.mp4", "video.m4s"})
"""Last parts of routes that last as long as their clients like."""


class Measured:
    """ASGI middleware that calls its function ``finished`` (see ``WebFinished``) when a request has
    ended. It has to enclose ``Guard``, so that refused requests are reported, too. A request that
    another process of the server has passed on is not reported here, because that process reports
    it."""

    def __init__(self, app: ASGIApp, *, finished: WebFinished) -> None:
        self._app = app
        self._finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and tell of it."""
        if scope["type"] not in ("http", "websocket") or is_passed_on(scope):
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = _GONE

        async def heard(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = str(message["status"])
            elif message["type"] == "websocket.accept":
                status = "101"
            await send(message)

        try:
            await self._app(scope, receive, heard)
        except OSError:  # its client has gone
            raise
        except Exception:
            status = "500"
            raise
        finally:
            call = route_of(scope)
            lasting = call.rpartition("/")[2] in _LASTING
            seconds = None if lasting else time.perf_counter() - began_s
            self._finished(call, status, seconds, _access_of(scope, status))


def _access_of(scope: Scope, status: str) -> Access | None:
    return None if status == "401" or "state" not in scope else access_of(scope)
