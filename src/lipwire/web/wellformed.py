"""What no part of the app has to expect: requests that are not in the encoding that URLs have."""

from starlette.types import ASGIApp, Receive, Scope, Send

from lipwire.web.problems import Told, refuse


class WellFormed:
    """ASGI middleware that answers requests whose query is not UTF-8 with 400, and passes the
    others on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] in ("http", "websocket"):
            try:
                scope.get("query_string", b"").decode()
            except UnicodeDecodeError as error:
                said = f"the query is no UTF-8 at byte {error.start}; allowed is text in UTF-8"
                await refuse(scope, receive, send, Told(400, said, code="INVALID_ARGUMENT"))
                return
        await self.app(scope, receive, send)
