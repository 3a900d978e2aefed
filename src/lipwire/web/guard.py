"""Who may ask: any web page that is open in a browser can reach a server on the same machine, and
whoever can reach a server that tells callers apart has to show who they are."""

import asyncio
import hmac
import time
from collections.abc import Collection
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lipwire.domain import EVERYTHING, Access, LipwireError, Operation
from lipwire.security import OPEN, AccessControl, Credentials
from lipwire.web.crossorigin import ANY_ORIGIN
from lipwire.web.passing import is_passed_on
from lipwire.web.problems import Told, problem, refuse, told_of

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HAS_TOKEN: Final = "has_token"
_MAY_CHANGE: Final = "may_change"
_ACCESS: Final = "access"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
_API: Final = ("v1", "whep")


class Guard:
    """Refuses requests under another name than this server's (DNS rebinding), those that change
    something and come from another page without the token (cross-site requests), and those to the
    API by whoever may not make them."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str],
        token: str,
        origins: Collection[str] = (),
        control: AccessControl = OPEN,
    ) -> None:
        """``hosts`` are the names that this server is reached by, besides loopback. Who has
        ``token`` may ask from anywhere, and pages of ``origins``, in lower case, without it; ``*``
        among them is none. ``control`` says who asks; where it tells callers apart, a page's origin
        alone is not enough."""
        self._app = app
        self._hosts = _LOOPBACK | {host.lower() for host in hosts}
        self._any = "*" in hosts
        self._token = token
        self._origins = frozenset(origins) - {ANY_ORIGIN}
        self._control = control

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it. One that another process of the server has passed on
        was looked at there."""
        if scope["type"] not in ("http", "websocket") or is_passed_on(scope):
            await self._app(scope, receive, send)
            return
        caller = _Caller(self._control, scope)
        why = self._other_name(scope)
        access = EVERYTHING
        if why is None and self._control.asks and caller.operation is not None:
            try:
                access = await self._enter(caller)
            except LipwireError as error:
                why = told_of(error, scope["path"])
        has = self._has_token(scope)
        known = has or caller.known
        may = known or (
            not self._control.closed and (_from_own_page(scope) or self._from_listed_page(scope))
        )
        scope["state"] = {
            **scope.get("state", {}),
            _HAS_TOKEN: known,
            _MAY_CHANGE: may,
            _ACCESS: access.told(),
        }
        if why is None and not may and not _only_reads(scope):
            why = Told(
                403,
                "this changes something: send the token (Authorization: Bearer TOKEN, the server's"
                " log has it), or ask from the server's own page or one of web.allowed_origins",
            )
        if why is None:
            await self._app(scope, receive, caller.heard(send))
            caller.left()
            return
        caller.status = why.status
        caller.left()
        if scope["type"] == "websocket":
            await refuse(scope, receive, send, why.status, why.detail)
        else:
            headers = {"WWW-Authenticate": "Bearer"} if why.status == 401 else {}
            answer = problem(
                why.status,
                why.detail,
                retry_after_s=why.retry_after_s,
                headers=headers,
                **why.more,
            )
            await answer(scope, receive, send)

    def _other_name(self, scope: Scope) -> Told | None:
        host = Headers(scope=scope).get("host", "")
        if self._any or _name_of(host) in self._hosts:
            return None
        return Told(403, f"this server is not called {host[:100]}; web.hosts names its names")

    async def _enter(self, caller: "_Caller") -> Access:
        """What whoever asks may do. Raises what ``AccessControl`` raises."""
        if self._has_token(caller.scope):
            caller.known = True
            return EVERYTHING
        # In a thread: keys may have to be read, or asked for.
        return await asyncio.to_thread(caller.enter)

    def _from_listed_page(self, scope: Scope) -> bool:
        return Headers(scope=scope).get("origin", "").lower() in self._origins

    def _has_token(self, scope: Scope) -> bool:
        given = _token_of(scope)
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


class _Caller:
    """Whoever makes one request, and the record of it."""

    def __init__(self, control: AccessControl, scope: Scope) -> None:
        self._control = control
        self.scope: Final = scope
        self._began_s = time.perf_counter()
        self.operation: Final = _operation_of(scope)
        """None where the request is for no part of the API."""
        self.access = EVERYTHING
        self.known = False
        """Whether they have shown who they are."""
        self.status = 0
        client = scope.get("client")
        self._address = client[0] if client else ""

    def enter(self) -> Access:
        """Let the request begin, and return what its caller may do. Raises what ``AccessControl``
        raises."""
        assert self.operation is not None
        credentials = Credentials(self._address, _token_of(self.scope))
        self.access = self._control.access(credentials)
        self._control.enter(self.access, self.operation)
        self.known = self._control.closed
        return self.access

    def heard(self, send: Send) -> Send:
        """Return ``send``, which takes note of the answer's status."""
        if self._control.audit is None:
            return send

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
            elif message["type"] == "websocket.accept":
                self.status = 101
            await send(message)

        return sent

    def left(self) -> None:
        """Record the request, which has ended."""
        if self._control.audit is None or self.operation is None:
            return
        parts = self.scope["path"].strip("/").split("/")
        self._control.audit.write(
            {
                "tenant": self.access.tenant,
                "subject": self.access.subject if self.access is not EVERYTHING else "",
                "address": self._address,
                "operation": self.operation,
                "call": f"{self.scope.get('method', 'WebSocket')} {_without_ids(parts)}",
                "avatar": parts[1] if parts[0] == "whep" and len(parts) > 1 else "",
                "outcome": self.status,
                "ms": round((time.perf_counter() - self._began_s) * 1000, 1),
            }
        )


def has_token(scope: Scope) -> bool:
    """Return whether a request, of which ``scope`` is what ``Guard`` has passed on, came with the
    server's token or with another credential that shows who asks."""
    return bool(scope["state"][_HAS_TOKEN])


def may_change(scope: Scope) -> bool:
    """Return whether a request, of which ``scope`` is what ``Guard`` has passed on, may change
    something: it came with the token or another credential, or from the server's own page or one of
    the listed origins."""
    return bool(scope["state"][_MAY_CHANGE])


def access_of(scope: Scope) -> Access:
    """Return what the caller of a request may do; ``scope`` is what ``Guard`` has passed on."""
    return Access.of_text(scope["state"][_ACCESS])


def _operation_of(scope: Scope) -> Operation | None:
    parts = scope["path"].strip("/").split("/")
    if parts[0] not in _API or scope.get("method") == "OPTIONS":
        return None
    return "read" if parts[:2] == ["v1", "avatars"] else "live"


def _without_ids(parts: list[str]) -> str:
    """A path without ids of sessions, by which whoever has one can take part."""
    match parts:
        case ["v1", "sessions", _, *rest]:
            shown: list[Any] = ["v1", "sessions", "{id}", *rest]
        case ["whep", avatar, *rest]:
            shown = ["whep", avatar, *("{id}" for _ in rest)]
        case _:
            shown = parts
    return "/" + "/".join(shown)


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
    if scope["type"] == "websocket":  # browsers cannot set headers of one
        query = scope.get("query_string", b"").decode("latin-1")
        given = dict(parse_qsl(query)).get("token", "")
        return str(given)
    return ""
