"""What browsers let pages of other origins do here: CORS (https://fetch.spec.whatwg.org)."""

from collections.abc import Collection
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipwire.web.identified import REQUEST_ID_HEADER
from lipwire.web.ratelimits import FIELDS
from lipwire.web.ticketed import ANY_ORIGIN, SECRET_HEADER

_EXPOSED: Final = ", ".join(
    (
        "Location",
        "ETag",
        "Link",
        "Retry-After",
        "Content-Range",
        "Accept-Ranges",
        REQUEST_ID_HEADER,
        *FIELDS,
        SECRET_HEADER,
    )
)
_METHODS: Final = "GET, POST, PATCH, DELETE, OPTIONS"
_TAKEN: Final = (
    "Authorization, Content-Type, If-Match, Idempotency-Key, Range, If-Range, If-None-Match"
)
_KEPT_S: Final = 600
"""How long a browser may keep what it was told."""


class CrossOrigin:
    """ASGI middleware for CORS: tells browsers that pages of the listed origins may send requests
    and read the answers. It refuses nothing itself."""

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        """``origins`` are as browsers send them, in lower case: scheme, host, and port where it is
        not the scheme's own. ``*`` is any."""
        self.app: Final = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what browsers ask beforehand; pass on everything else."""
        if scope["type"] != "http" or not self._origins:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        told: dict[str, str] = {"Vary": "Origin"}
        origin = headers.get("origin", "")
        allowed = bool(origin) and bool(self._origins & {origin.lower(), ANY_ORIGIN})
        if allowed:
            told["Access-Control-Allow-Origin"] = origin
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await Response(status_code=204, headers=told | _asked(headers))(
                    scope, receive, send
                )
                return
            told["Access-Control-Expose-Headers"] = _EXPOSED

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in told.items():
                    if name == "Vary":
                        given.add_vary_header(value)
                    else:
                        given[name] = value
            await send(message)

        await self.app(scope, receive, answer)


def _asked(headers: Headers) -> dict[str, str]:
    """What a browser is told before it asks."""
    told = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Headers": _TAKEN,
        "Access-Control-Max-Age": str(_KEPT_S),
    }
    # From a public page to this machine (https://wicg.github.io/private-network-access).
    if headers.get("access-control-request-private-network") == "true":
        told["Access-Control-Allow-Private-Network"] = "true"
    return told
