"""Tickets: with one of them a web page opens one live session, and is given the secret of that
session alone.

Browsers cannot send headers with an ``EventSource``, a ``WebSocket`` or an ``<img>``, and what a
page holds its visitor can read: an API key does not belong there. So an operator's own backend asks
for a ticket with its key, and the page has nothing but the ticket. Both texts have 256 random bits,
and only their hashes are kept, in a store that all processes of a server share. Tickets are kept in
Redis instead where several servers share one; a session's secret counts at its server alone, which
is where the session is.
"""

import glob
import hashlib
import heapq
import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Final

from lipwire.domain import (
    Access,
    InvalidInput,
    Overloaded,
    StorageFailed,
    Unauthenticated,
    Unavailable,
)
from lipwire.security.shared.tickettexts import SharedTexts
from lipwire.security.ticketstores import OwnStore, TicketStore
from lipwire.stores import StoreAway

TICKET: Final = "lipwire_ticket_"
"""What a ticket begins with."""
SECRET: Final = "lipwire_session_"
"""What the secret of a session begins with."""
SECONDS: Final = 60
MOST_SECONDS: Final = 300
MINUTES: Final = 30
MOST_MINUTES: Final = 240
MOST: Final = 4096
"""Tickets of one process that have not expired, used ones among them."""
MOST_OF_TENANT: Final = 512
_LONGEST: Final = 80
_FULL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket, or the secret of the session that it opened, allows: what its bearer may do
    (``access``: live sessions with one avatar, or the one session), the origin of the web pages
    that may use it, until when (seconds since 1970), and how many seconds the session may last."""

    access: Access
    """Of whoever asked for the ticket, no more than live sessions with its one avatar; of a secret,
    with ``session``."""
    origin: str
    """Of the pages that may use it, in lower case."""
    until_s: float
    """When it expires, in seconds since 1970."""
    lasts_s: float
    """How long the session may last."""
    shared: bool = False
    """Whether it counts at other servers, too."""


class Tickets:
    """Issues tickets, each of which lets a web page open one live session without an API key, and
    says what they allow. The page that has used a ticket gets a secret, with which it uses that
    session. Thread-safe; processes that are given the same store accept each other's tickets."""

    def __init__(
        self,
        store: TicketStore | None = None,
        shared: SharedTexts | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``store`` keeps what was issued; None keeps it in this process alone. ``shared`` keeps
        tickets in Redis, so that other servers accept them too; those that are issued while Redis
        does not answer are kept in ``store``. ``shared`` is None where there are no other servers.
        ``now`` gives seconds since 1970."""
        self._store: Final = store or OwnStore()
        self._shared: Final = shared
        self._now = now
        self._lock = threading.Lock()
        self._issued: list[tuple[float, str, str]] = []
        """When, what and whose: a heap of what has not expired."""
        self._of_tenant: Counter[str] = Counter()

    def issue(
        self,
        access: Access,
        avatar: str,
        origin: str,
        *,
        seconds: float = SECONDS,
        minutes: float = MINUTES,
    ) -> str:
        """Return a new ticket, with which a page of ``origin`` (as browsers send it, in lower case)
        opens one session with ``avatar`` within ``seconds``, and uses that session for ``minutes``.
        The session counts for the caller who has ``access``, in limits and in records. Raises
        InvalidInput where a time is out of range (1 to ``MOST_SECONDS``, which is 300, and 1 to
        ``MOST_MINUTES``, 240), NotFound where ``access`` does not allow the avatar, Overloaded
        where too many tickets have not expired, and StorageFailed where the ticket cannot be
        kept."""
        for name, value, most in (
            ("seconds", seconds, MOST_SECONDS),
            ("minutes", minutes, MOST_MINUTES),
        ):
            if not 1 <= value <= most:
                raise InvalidInput(f"{name} is {value:g}; allowed are 1 to {most}")
        access.check_avatar(avatar)
        own = Access(access.subject, access.tenant, frozenset({"live"}), (glob.escape(avatar),))
        text = TICKET + secrets.token_urlsafe(32)
        ticket = Ticket(own, origin, self._now() + seconds, minutes * 60)
        whose = access.counts_for
        with self._lock:
            self._forget_expired()
            for count, most in (
                (self._of_tenant[whose], MOST_OF_TENANT),
                (len(self._issued), MOST),
            ):
                if count >= most:
                    raise Overloaded(
                        f"{count} tickets have not expired; allowed are {most}",
                        retry_after_s=_FULL_S,
                    )
            self._of_tenant[whose] += 1
            issued = ticket.until_s, _name_of(text), whose
            heapq.heappush(self._issued, issued)
        if self._shared is not None:
            # Where it cannot be put there it may be there all the same: what is kept here has
            # another text, and that one is nobody's.
            elsewhere = TICKET + secrets.token_urlsafe(32)
            with suppress(StoreAway):
                self._shared.put(_name_of(elsewhere), ticket_text(ticket), seconds)
                return elsewhere
        try:
            self._store.put(_name_of(text), ticket_text(ticket))
        except StorageFailed:
            with self._lock:
                if issued in self._issued:
                    self._issued.remove(issued)
                    heapq.heapify(self._issued)
                    self._uncount(whose)
            raise
        return text

    def find(self, text: str) -> Ticket:
        """Return what the ticket or session secret ``text`` allows, without using it up. Raises
        Unauthenticated where it was never issued, was used or has expired, with the same message
        for all three. Where other servers may have issued it, Redis is asked; raises Unavailable
        where Redis does not answer."""
        name = _name_of(text)
        told = self._store.get(name) if len(text) <= _LONGEST else None
        if told is not None:
            ticket = ticket_of(told)
            if self._now() < ticket.until_s:
                return ticket
        elif self._shared is not None and text.startswith(TICKET) and len(text) <= _LONGEST:
            with _asking_redis():
                found = self._shared.get(name)
            if found is not None and (known := self._from_elsewhere(*found)) is not None:
                return known
        raise Unauthenticated("the ticket is not known here: it was used, or has expired")

    def take(self, text: str) -> Ticket:
        """Use up the ticket ``text``, and return what it allowed. Where several callers take one
        ticket at the same time, at whatever server, only one succeeds. Raises Unauthenticated for
        the others, and where the ticket was never issued, was used or has expired. Raises
        Unavailable where Redis cannot be asked; the ticket may be used up then."""
        ticket, name = self.find(text), _name_of(text)
        if ticket.shared and self._shared is not None:
            with _asking_redis():
                took = self._shared.take(name, ticket.until_s - self._now())
        else:
            took = self._store.take(name)
        if not took:
            raise Unauthenticated("the ticket is not known here: it was used, or has expired")
        return ticket

    def give_back(self, text: str, ticket: Ticket) -> None:
        """Undo a ``take`` of the ticket ``text``, which has returned ``ticket``, because no session
        was opened: the ticket can be used again. Does nothing where it has expired. Raises
        StorageFailed where it cannot be kept."""
        left_s = ticket.until_s - self._now()
        if left_s <= 0:
            return
        if not ticket.shared or self._shared is None:
            self._store.put(_name_of(text), ticket_text(ticket))
            return
        try:
            self._shared.put(_name_of(text), ticket_text(ticket), left_s)
        except StoreAway:
            raise StorageFailed("tickets cannot be kept now") from None

    def secret(self, ticket: Ticket, session_id: str) -> str:
        """Return a new secret, with which the page that has used ``ticket`` may use the session
        with the id ``session_id``, until ``forget`` or for ``ticket.lasts_s`` seconds. Raises
        StorageFailed where it cannot be kept."""
        secret = SECRET + secrets.token_urlsafe(32)
        until_s = self._now() + ticket.lasts_s
        own = replace(ticket.access, session=session_id)
        kept = replace(ticket, access=own, until_s=until_s, shared=False)
        self._store.put(_name_of(secret), ticket_text(kept))
        return secret

    def forget(self, text: str) -> None:
        """Make the session secret ``text`` invalid, because its session has ended. Does nothing
        where ``text`` is not known."""
        self._store.take(_name_of(text))

    def _from_elsewhere(self, text: str, ends_s: float) -> Ticket | None:
        """The ticket of ``text``, which has come from Redis and ends there in ``ends_s`` seconds;
        None where no server has written it."""
        with suppress(InvalidInput):
            ticket = ticket_of(text)
            access = ticket.access
            if (
                access.operations == {"live"}
                and not access.session
                and len(access.avatars) == 1
                and isinstance(access.avatars[0], str)
                and 0 < ticket.lasts_s <= MOST_MINUTES * 60
                and 0 < ends_s <= MOST_SECONDS
            ):
                # The clocks of servers may differ; Redis has one.
                return replace(ticket, until_s=self._now() + ends_s, shared=True)
        return None

    def _forget_expired(self) -> None:
        """The lock is held."""
        now = self._now()
        while self._issued and self._issued[0][0] <= now:
            _, name, whose = heapq.heappop(self._issued)
            self._store.take(name)
            self._uncount(whose)

    def _uncount(self, whose: str) -> None:
        """The lock is held."""
        self._of_tenant[whose] -= 1
        if not self._of_tenant[whose]:
            del self._of_tenant[whose]


def is_ticket(token: str) -> bool:
    """Return whether ``token`` is a ticket or the secret of a session, by how it begins."""
    return token.startswith((TICKET, SECRET))


@contextmanager
def _asking_redis() -> Iterator[None]:
    """Raises Unavailable for a StoreAway of the block."""
    try:
        yield
    except StoreAway:
        raise Unavailable("tickets cannot be looked up now; try again in a moment") from None


def _name_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def ticket_text(ticket: Ticket) -> str:
    """Return ``ticket`` as one line of text (JSON), from which ``ticket_of`` makes it again in
    another process of the same server. ``Ticket.shared``, whether it counts at other servers too,
    is not in it."""
    return json.dumps([ticket.access.told(), ticket.origin, ticket.until_s, ticket.lasts_s])


def ticket_of(text: str) -> Ticket:
    """Return the ticket that ``text`` describes, a line that ``ticket_text`` wrote, with
    ``Ticket.shared`` False. Raises InvalidInput where ``text`` is not of that form."""
    with suppress(OverflowError, RecursionError, TypeError, ValueError):
        access, origin, until_s, lasts_s = json.loads(text)
        return Ticket(Access.of_text(access), str(origin), float(until_s), float(lasts_s))
    raise InvalidInput("another process tells of a ticket in a way not known here")
