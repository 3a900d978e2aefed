"""Who may ask: any web page that is open in a browser can reach a server on the same machine, and
whoever can reach a server that tells callers apart has to show who they are."""

import asyncio
import hmac
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from lipwire.domain import EVERYTHING, Access, LipwireError
from lipwire.security import OPEN, AccessControl, Caller, Credentials, Ticket, Tickets
from lipwire.security.tickets import SECRET, TICKET, is_ticket, ticket_of, ticket_text
from lipwire.web.asked import avatar_of, call_of, is_api, is_opening, is_signed, operation_of
from lipwire.web.passing import is_passed_on
from lipwire.web.problems import Told, code_of, refuse, told_of
from lipwire.web.ratelimits import rate_limit_fields
from lipwire.web.ticketed import ANY_ORIGIN, LOOPBACK, check_asked

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HAS_TOKEN: Final = "has_token"
_MAY_CHANGE: Final = "may_change"
_ACCESS: Final = "access"
_TICKET: Final = "ticket"
_GONE: Final = 499
"""The status of a request whose client has gone before it had an answer."""
_REFUSED: Final = 403
"""The status of a WebSocket that was closed before it was opened."""
_MAY_HAVE_OPENED: Final = frozenset({200, 201, _GONE})
"""Statuses with which a session may have been opened."""

WEB_TOKEN: Final = Access("web.token")
"""Of whoever has the server's own token: everything, and counted for itself."""


class _Outcome:
    """What one request ends with. A context manager, around all that answers it: it hears of errors
    that nobody foresaw, which are answered outside of it."""

    def __init__(self) -> None:
        self._status = _GONE
        self._failed = False
        self._gone = False

    @property
    def has_opened_none(self) -> bool:
        """Whether the request has certainly opened no session."""
        return self._status not in _MAY_HAVE_OPENED

    @property
    def code(self) -> str:
        """OK or the name of a gRPC status, for the record."""
        return "INTERNAL" if self._failed else code_of(self._status)

    def hear(self, message: Message) -> None:
        """Take note of an ASGI message that answers the request."""
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self._status = message["status"]
            case "websocket.accept":
                self._status = 200
            case "websocket.close" if self._status == _GONE:
                self._status = _REFUSED

    @contextmanager
    def sending(self, message: Message) -> Iterator[None]:
        """Take note of a client that has gone before it was sent ``message``, which the block
        sends."""
        try:
            yield
        except OSError:
            self._gone = True
            if message["type"] == "websocket.accept":
                self._status = _GONE
            raise

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or self._gone or isinstance(error, WebSocketDisconnect):
            return
        self._failed = True
        if self._status == _GONE:
            self._status = 500


class Guard:
    """ASGI middleware that refuses requests under another name than this server's (DNS rebinding),
    those that change something and come from another page without the token (cross-site requests),
    and those to the API by whoever may not make them."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        token: str,
        origins: Collection[str] = (),
        control: AccessControl = OPEN,
        tickets: Tickets | None = None,
        signed: Callable[[Scope], Access | None] = lambda scope: None,
    ) -> None:
        """``hosts`` are the names that this server is reached by, besides loopback. Who has
        ``token`` may ask from anywhere, and pages of ``origins``, in lower case, without it; ``*``
        among them is none. ``control`` says who asks; where it tells callers apart, a page's origin
        alone is not enough. ``tickets`` are those that pages may bring; None is for none.
        ``signed(scope)`` returns what a request with a signed link, and without a token, may do,
        None where nothing follows from the link; it is called in a thread, and raises LipwireError
        where the link is not right."""
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in hosts}
        self._any = "*" in hosts
        self._token = token
        self._origins = frozenset(origins) - {ANY_ORIGIN}
        self._control = control
        self._tickets = tickets or Tickets()
        self._signed = signed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it. One that another process of the server has passed on
        was looked at there."""
        if scope["type"] not in ("http", "websocket") or is_passed_on(scope):
            await self._app(scope, receive, send)
            return
        operation = operation_of(scope)
        token = _token_of(scope) if is_api(scope) else ""
        if operation is None or not (self._control.asks or is_ticket(token)):
            caller = None
        else:
            client = scope.get("client")
            credentials = Credentials(client[0] if client else "", token)
            caller = Caller(self._control, operation, call_of(scope), credentials)
            caller.model_id = avatar_of(scope)
        outcome = _Outcome()
        ticket: Ticket | None = None

        async def give_back() -> None:
            """Let the ticket be used again where the request has opened no session."""
            nonlocal ticket
            if caller is not None and ticket is not None and outcome.has_opened_none:
                given, ticket = ticket, None
                await asyncio.to_thread(self._give_back, token, given)

        async def heard(message: Message) -> None:
            outcome.hear(message)
            if "status" in message and caller is not None and caller.access is not None:
                limits = self._control.limits
                standing = [] if limits is None else limits.standing(caller.access)
                MutableHeaders(scope=message).update(rate_limit_fields(standing))
            await give_back()  # whoever is told that it was refused may use it at once
            with outcome.sending(message):
                await send(message)

        try:
            with outcome:
                why = self._other_name(scope)
                if why is None and is_ticket(token):
                    try:
                        ticket = await asyncio.to_thread(self._admitted, scope, token, caller)
                    except LipwireError as error:
                        why = told_of(error, scope["path"])
                await self._guarded(scope, receive, heard, caller, ticket, why)
        finally:
            await give_back()
            if caller is not None:
                caller.left(outcome.code)

    def _admitted(self, scope: Scope, token: str, caller: Caller | None) -> Ticket:
        """What the ticket or secret ``token`` of a request allows, which is used by it where the
        request opens a session. Raises LipwireError where it does not allow the request, or
        ``caller``, who makes it, may not make one now."""
        ticket = self._tickets.find(token)
        check_asked(scope, ticket)
        if caller is not None:
            caller.enter(known=ticket.access)
            if token.startswith(TICKET):
                return self._tickets.take(token)
        return ticket

    def _give_back(self, token: str, ticket: Ticket) -> None:
        """Let a ticket be used again, as it opened no session."""
        if token.startswith(TICKET):
            with suppress(LipwireError):  # it counts as used then
                self._tickets.give_back(token, ticket)

    async def _guarded(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        caller: Caller | None,
        ticket: Ticket | None,
        why: Told | None,
    ) -> None:
        """Pass the request on, or refuse it: for ``why``, where there is a reason already.
        ``caller`` is who makes it, where it is asked who that is, and ``ticket`` what their ticket
        allows."""
        known = self._has_token(scope)
        access, linked = EVERYTHING, None
        if why is None and is_signed(scope) and not _token_of(scope):
            try:
                linked = await asyncio.to_thread(self._signed, scope)
            except LipwireError as error:
                why = told_of(error, scope["path"])
        if ticket is not None:
            access, known = ticket.access, True
        elif why is None and caller is None:
            access = linked or EVERYTHING
        elif why is None and caller is not None:
            try:
                shown = WEB_TOKEN if known else linked
                access = await asyncio.to_thread(partial(caller.enter, known=shown))
                known = known or self._control.closed
            except LipwireError as error:
                why = told_of(error, scope["path"])
        may = known or (
            not self._control.closed and (_from_own_page(scope) or self._from_listed_page(scope))
        )
        scope["state"] = {
            **scope.get("state", {}),
            _HAS_TOKEN: known,
            _MAY_CHANGE: may,
            _ACCESS: access.told(),
        }
        if ticket is not None and is_opening(scope):
            scope["state"][_TICKET] = ticket_text(ticket)
        if why is None and not may and not _only_reads(scope):
            why = Told(
                403,
                "this changes something: send the token (Authorization: Bearer TOKEN, the server's"
                " log has it), or ask from the server's own page or one of web.allowed_origins",
            )
        if why is None:
            await self._app(scope, receive, send)
        else:
            await refuse(scope, receive, send, why)

    def _other_name(self, scope: Scope) -> Told | None:
        host = Headers(scope=scope).get("host", "")
        if self._any or _name_of(host) in self._hosts:
            return None
        return Told(403, f"this server is not called {host[:100]}; web.hosts names its names")

    def _from_listed_page(self, scope: Scope) -> bool:
        return Headers(scope=scope).get("origin", "").lower() in self._origins

    def _has_token(self, scope: Scope) -> bool:
        given = _token_of(scope)
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def has_token(scope: Scope) -> bool:
    """Return whether a request came with the server's token or with another credential that shows
    who asks. ``scope`` is that of a request that ``Guard`` has passed on; KeyError for any other.
    """
    return bool(scope["state"][_HAS_TOKEN])


def may_change(scope: Scope) -> bool:
    """Return whether a request may change something: it came with the server's token or another
    credential, or, where callers are not told apart by keys or certificates, from the server's own
    page or a page of the ``origins`` of ``Guard``. ``scope`` is that of a request that ``Guard``
    has passed on; KeyError for any other."""
    return bool(scope["state"][_MAY_CHANGE])


def access_of(scope: Scope) -> Access:
    """Return the ``Access`` of the caller of a request: what they may do. ``scope`` is that of a
    request that ``Guard`` has passed on; KeyError for any other."""
    return Access.of_text(scope["state"][_ACCESS])


def opened_by(scope: Scope) -> Ticket | None:
    """Return the ticket with which a request opens a session; None where it came without one.
    ``scope`` is that of a request that ``Guard`` has passed on."""
    told = scope["state"].get(_TICKET)
    return None if told is None else ticket_of(told)


def _only_reads(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] in _SAFE


def _from_own_page(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc.lower() == headers.get("host", "").lower()


def _name_of(host: str) -> str:
    """Without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _token_of(scope: Scope) -> str:
    """The key or token of a request; empty where there is none."""
    headers = Headers(scope=scope)
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if given := headers.get("x-api-key", ""):
        return given.strip()
    # Browsers cannot set headers of a WebSocket, nor of what an EventSource or an <img> asks for.
    query = scope.get("query_string", b"").decode("latin-1")
    given = str(dict(parse_qsl(query)).get("token", ""))
    if scope["type"] == "websocket" or (scope["method"] == "GET" and given.startswith(SECRET)):
        return given
    return ""
