"""What a page may ask for that has a ticket, or the secret of the session that it opened with it,
and nothing else."""

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from lipwire.config.values import web_origin
from lipwire.domain import InvalidInput, NotFound, PermissionDenied
from lipwire.security import Ticket
from lipwire.session.live.sessions import NO_SESSION
from lipwire.web.asked import is_before_opening, is_opening, session_of

SECRET_HEADER: Final = "Lipwire-Session-Token"
"""In which the answer to a request with a ticket has the secret of the session."""
ANY_ORIGIN: Final = "*"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Pages:
    """The web pages that may send requests to this server, as browsers see it: those of listed
    origins and the server's own."""

    def __init__(self, origins: Collection[str], hosts: Collection[str]) -> None:
        """``origins`` are those of other pages, in lower case, scheme, host and port (``*`` is
        any); ``hosts`` are the names of this server besides loopback."""
        self._origins = frozenset(origins)
        self._hosts = LOOPBACK | {host.lower() for host in hosts}

    def checked(self, origin: object) -> str:
        """Return ``origin``, a value that a client sent (any type), as browsers send it: scheme,
        host, and port where it is not the scheme's own, in lower case. Raises InvalidInput where it
        is no origin, or where it is neither listed nor this server's, so that browsers would not
        let its pages send requests."""
        try:
            found = web_origin(origin if isinstance(origin, str) else "")
        except ValueError:
            raise InvalidInput(
                f"origin is {str(origin)[:60]!r}; allowed is one as https://app.example.org"
            ) from None
        listed = found in self._origins or ANY_ORIGIN in self._origins
        if found == ANY_ORIGIN or not (listed or urlsplit(found).hostname in self._hosts):
            raise InvalidInput(
                f"origin is {found[:60]}; allowed are pages of this server and of"
                " web.allowed_origins, as browsers let no others ask"
            )
        return found


def check_asked(scope: Scope, ticket: Ticket) -> None:
    """Check that the request of the ASGI ``scope`` is one that ``ticket`` allows. ``ticket`` is
    what ``Tickets.find`` returned for the text that came with the request; neither that text nor
    the time is looked at again here.

    The request has to come from a page of the ticket's origin; GET and HEAD may have no ``Origin``.
    Where ``ticket.access.session`` is empty, it has to open a session, or ask for the ICE servers
    before that; otherwise the ticket is the secret of the session with that id, and the request has
    to be about that session. Raises NotFound for a request about another session, and
    PermissionDenied for everything else that is not allowed.
    """
    origin = Headers(scope=scope).get("origin", "").lower()
    # Browsers send none with what a page of the same origin reads, nor with what an <img> shows.
    may_be_missing = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    if origin != ticket.origin and (origin or not may_be_missing):
        raise PermissionDenied("the ticket is for pages of another origin")
    own = ticket.access.session
    if not own:
        if not (is_opening(scope) or is_before_opening(scope)):
            raise PermissionDenied("a ticket opens one session; nothing else can be done with it")
        return
    asked = session_of(scope)
    if asked is None:
        raise PermissionDenied("this can be done with the session of the ticket; nothing else can")
    if asked != own:
        raise NotFound(NO_SESSION)
