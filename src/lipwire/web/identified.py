"""The id of each request: taken from its headers or made, and told in its answer."""

from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipwire.domain.tracing import span, trace_headers, trace_of, traced
from lipwire.web.asked import route_of
from lipwire.web.passing import is_passed_on

REQUEST_ID_HEADER: Final = "X-Request-Id"
_ANSWERS: Final = frozenset(
    {"http.response.start", "websocket.http.response.start", "websocket.accept"}
)


class Identified:
    """ASGI middleware that gives each request an id, which logs, records and errors then contain:
    the one in the header ``X-Request-Id`` or ``traceparent`` of the request, else a new one. The
    answer has the id in the header ``X-Request-Id``. The middleware has to enclose everything that
    may answer. Where spans are recorded, the request is recorded as one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app: Final = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        trace = trace_of(Headers(scope=scope))
        if is_passed_on(scope):  # what passed it on tells of it
            with traced(trace):
                await self.app(scope, receive, send)
            return
        route = route_of(scope)
        method, _, path = route.partition(" ")
        with (
            traced(trace),
            span(route, "server", **{"http.request.method": method, "http.route": path}) as spent,
        ):

            async def told(message: Message) -> None:
                if message["type"] in _ANSWERS:
                    MutableHeaders(scope=message)[REQUEST_ID_HEADER] = trace.request_id
                    status = message.get("status", 101)
                    spent.set(**{"http.response.status_code": status})
                    if status >= 500:
                        spent.fail(str(status))
                await send(message)

            # For another process that the request may be passed on to.
            made = [(name.encode(), value.encode()) for name, value in trace_headers()]
            kept = [pair for pair in scope["headers"] if pair[0] not in dict(made)]
            scope["headers"] = [*kept, *made]
            await self.app(scope, receive, told)
