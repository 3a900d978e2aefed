"""All live sessions of a process: admitting them, finding them again, ending them."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from lipwire.domain import Call, LipwireError, NotFound, Overloaded, Unavailable
from lipwire.domain.closing import Closing
from lipwire.serving.leases import LEASE_S
from lipwire.session.live.counting import OwnCount, SessionCount
from lipwire.session.live.liveavatar import LiveAvatar
from lipwire.session.live.livesession import LiveSession
from lipwire.session.live.rules import SessionRules
from lipwire.session.live.settings import SessionSettings
from lipwire.session.live.threads import LiveThreads

NO_SESSION: Final = "there is no such session; it may have ended"
"""What is said of an id that no session has."""
_LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 1.0
"""How often sessions are looked at."""
_RETRY_AFTER_S: Final = 5.0
_RENEW_EVERY_S: Final = LEASE_S / 3
"""How often leases are renewed."""


class Leases(Protocol):
    """Shares of the speed of whatever makes the mouths, held by sessions while they live."""

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        """Give ``holder`` (a session's id) a lease for LEASE_S seconds on the time that a session
        with avatar ``model_id`` takes, or renew the one that it has. ``call`` is the request that
        this is done for. Raises Overloaded, with how many are held and how many fit, where no more
        fit."""
        ...

    def release(self, holder: str) -> None:
        """End the lease of ``holder`` (a session's id); nothing where it has none."""
        ...


@dataclass(slots=True)
class _Kept:
    """A session, and what its rules need to know."""

    session: LiveSession
    model_id: str
    began_s: float
    active_s: float
    """When something was last said to it."""
    renewed_s: float
    joined: bool = False
    attached: int = 0
    left_s: float | None = None
    """When its last client left."""


@dataclass(frozen=True, slots=True)
class SessionsStats:
    """Numbers about all sessions of a process."""

    active: int
    most: int | None
    """Sessions that ``max_sessions`` allows, in all processes together; None where only the
    machine's speed counts."""
    opened: int
    refused: int
    ended: dict[str, int]
    """Sessions that have ended, by the reason."""


@dataclass(frozen=True, slots=True)
class SessionUsage:
    """What a session was, told when it has ended."""

    tenant: str
    avatar: str
    """The one that it showed last."""
    lasted_s: float
    spoken_s: float
    frames: int
    """Frames that were composed."""
    mouths: int
    """Mouths that the network made for it."""
    reason: str
    """Why it has ended."""


class LiveSessions(Closing):
    """The live sessions of a process. Thread-safe; a context manager."""

    def __init__(
        self,
        open_avatar: Callable[[str, Call], LiveAvatar],
        threads: LiveThreads,
        *,
        rules: SessionRules | None = None,
        leases: Leases | None = None,
        count: SessionCount | None = None,
        prefix: str = "",
        on_end: Callable[[SessionUsage], object] = lambda usage: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``open_avatar(model_id, call)`` returns an avatar that is the session's until it closes
        it. ``threads`` are closed by whoever opened them. ``leases`` says what the machine can
        carry; None where that is not limited. ``count`` has the sessions of the server's other
        processes too; None where there are none. ``prefix`` is what the sessions' ids begin with.
        ``on_end`` is told what each session was. ``clock`` is that of ``threads.pacer``."""
        self._open_avatar = open_avatar
        self._threads = threads
        self._rules = rules or SessionRules()
        self._leases = leases
        self._count = count or OwnCount()
        self._prefix = prefix
        self._on_end = on_end
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._opening: Counter[str] = Counter()
        """Sessions of each tenant that are being opened."""
        self._draining = False
        self._opened = self._refused = 0
        self._ended: dict[str, int] = {}
        threads.pacer.add(self, clock() + _EVERY_S)

    def open(
        self,
        model_id: str,
        settings: SessionSettings,
        *,
        tenant: str = "",
        call: Call,
        with_outbox: bool = True,
    ) -> LiveSession:
        """Begin a session with avatar ``model_id``, for ``tenant``. ``call`` is the request that
        asks for it. ``with_outbox`` has its outbox take what leaves from the first frame on.

        The session ends unless a client is attached within ``nobody_joined_timeout_s``. Where there
        is no room, the session of the same tenant whose client left first is ended for it. Raises
        Overloaded where there are still too many or the machine cannot carry one more, Unavailable
        once draining, and what opening the avatar raises (NotFound, AvatarInvalid, ...).
        """
        self._admit(tenant)
        session = None
        try:
            avatar = self._open_avatar(model_id, call)
            session = LiveSession(
                avatar,
                settings,
                self._threads,
                tenant=tenant,
                prefix=self._prefix,
                clock=self._clock,
            )
            try:
                self._acquire(session.id, model_id, call)
            except Overloaded:
                if not self._make_room(tenant):
                    raise
                self._acquire(session.id, model_id, call)
            if with_outbox:
                session.add_outbox()
            session.start()
            now = self._clock()
            with self._lock:
                self._check_not_draining()
                self._left_opening(tenant)
                self._opened += 1
                self._kept[session.id] = _Kept(session, model_id, now, now, now)
        except BaseException as error:
            with self._lock:
                self._left_opening(tenant)
                self._refused += isinstance(error, Overloaded)
            self._count.end()
            if session is not None:
                session.close("refused")
                if self._leases is not None:
                    self._leases.release(session.id)
            raise
        return session

    def change_avatar(self, session: LiveSession, model_id: str, call: Call) -> None:
        """Show avatar ``model_id`` in ``session`` as soon as nobody speaks. ``call`` is the request
        that asks for it. Raises Overloaded where the machine cannot carry the session with that
        avatar, and what opening the avatar raises (NotFound, AvatarInvalid, ...)."""
        avatar = self._open_avatar(model_id, call)
        try:
            self._acquire(session.id, model_id, call)
        except BaseException:
            avatar.close()
            raise
        session.change_avatar(avatar)
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is not None:
                kept.model_id = model_id
        if session.closed and self._leases is not None:  # it has given its lease back already
            self._leases.release(session.id)

    def find(self, session_id: str, tenant: str = "") -> LiveSession:
        """Return the running session of ``tenant`` with the id ``session_id``. Raises NotFound
        where ``tenant`` has no such session, or it has ended."""
        with self._lock:
            kept = self._kept.get(session_id)
        if kept is None or kept.session.tenant != tenant or kept.session.closed:
            raise NotFound(NO_SESSION)
        return kept.session

    def every(self, tenant: str = "") -> list[LiveSession]:
        """Return the running sessions of ``tenant``, the oldest first."""
        with self._lock:
            sessions = [kept.session for kept in self._kept.values()]
        return [one for one in sessions if one.tenant == tenant and not one.closed]

    def attach(self, session: LiveSession) -> None:
        """Note that a client has begun to take what ``session`` sends; call ``detach`` when it has
        gone. Where all earlier clients have gone, what they did not take is dropped."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is None:
                return
            if kept.joined and not kept.attached:
                session.drop_unsent()
            kept.joined = True
            kept.attached += 1
            kept.left_s = None

    def detach(self, session: LiveSession) -> None:
        """Note that a client of ``session`` has gone. Where it was the last, the session ends
        unless one is attached within ``reconnect_grace_s``."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is None:
                return
            kept.attached = max(0, kept.attached - 1)
            if not kept.attached:
                kept.left_s = self._clock()
        if self._rules.reconnect_grace_s == 0:
            self._look(kept, self._clock())

    def keep_alive(self, session: LiveSession) -> None:
        """Note that ``session`` is wanted though nothing is said: the time of ``max_idle_s`` begins
        anew."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is not None:
                kept.active_s = self._clock()

    @property
    def running(self) -> int:
        """How many sessions run in all processes of the server."""
        return self._count.running

    def stats(self) -> SessionsStats:
        """Return how many sessions there are now, and how many were opened, were refused and have
        ended since this object was made, in this process."""
        with self._lock:
            return SessionsStats(
                len(self._kept) + self._opening.total(),
                self._rules.max_sessions,
                self._opened,
                self._refused,
                dict(self._ended),
            )

    def drain(self, left_s: float) -> None:
        """Begin no more sessions, and tell the clients of the others that they have ``left_s``
        seconds to leave. Does not wait for that."""
        with self._lock:
            self._draining = True
            sessions = [kept.session for kept in self._kept.values()]
        for session in sessions:
            session.going_away("the server is shutting down", left_s)

    def close(self) -> None:
        """End all sessions."""
        with self._lock:
            self._draining = True
            every = list(self._kept.values())
        self._threads.pacer.remove(self)
        for kept in every:
            self._end(kept, "the server is shutting down", Unavailable("the server has stopped"))

    # -- the pacing thread -------------------------------------------------------------------------

    def on_due(self, now: float) -> float:
        """End the sessions whose time is over at ``now``, in seconds of the clock, and renew
        leases; return when to be called again. For the pacing thread (``Paced``)."""
        with self._lock:
            every = list(self._kept.values())
        for kept in every:
            self._look(kept, now)
        return now + _EVERY_S

    def _look(self, kept: _Kept, now: float) -> None:
        session, rules = kept.session, self._rules
        if session.closed:
            self._end(kept, session.ended_because or "closed")
            return
        kept.active_s = max(kept.active_s, session.pushed_s if session.silent else now)
        for reason, since_s, limit_s in (
            ("max_duration", kept.began_s, rules.max_duration_s),
            ("max_idle", kept.active_s, rules.max_idle_s),
            (
                "nobody_joined_timeout",
                None if kept.joined else kept.began_s,
                rules.nobody_joined_timeout_s,
            ),
            ("reconnect_grace", kept.left_s, rules.reconnect_grace_s),
        ):
            if since_s is not None and limit_s is not None and now - since_s >= limit_s:
                self._end(kept, reason)
                return
        if self._leases is not None and now - kept.renewed_s >= _RENEW_EVERY_S:
            kept.renewed_s = now
            self._threads.workers.submit(self._renew, kept)

    def _renew(self, kept: _Kept) -> None:
        """Renew the lease; a session that runs is not ended where that fails, but tries again."""
        try:
            self._acquire(kept.session.id, kept.model_id, Call(_RENEW_EVERY_S, service="live"))
        except LipwireError as error:
            _LOG.info("the lease of a live session was not renewed: %s", error)
        if kept.session.closed and self._leases is not None:
            self._leases.release(kept.session.id)

    def _end(self, kept: _Kept, because: str, error: LipwireError | None = None) -> None:
        with self._lock:
            if self._kept.pop(kept.session.id, None) is None:
                return
            self._ended[because] = self._ended.get(because, 0) + 1
        self._count.end()
        kept.session.close(because, error)
        self._threads.workers.submit(self._on_end, self._usage(kept, because))
        if self._leases is not None:
            self._threads.workers.submit(self._leases.release, kept.session.id)

    def _usage(self, kept: _Kept, because: str) -> SessionUsage:
        counts = kept.session.counts
        return SessionUsage(
            kept.session.tenant,
            kept.model_id,
            self._clock() - kept.began_s,
            counts.spoken_ms / 1000,
            counts.frames,
            counts.mouths,
            because,
        )

    def end(self, session: LiveSession) -> None:
        """End a session because its client says so; ending twice is allowed."""
        with self._lock:
            kept = self._kept.get(session.id)
        if kept is not None:
            self._end(kept, "closed")
        session.close("closed")

    def _make_room(self, tenant: str) -> bool:
        """End the session of ``tenant`` whose client left first; whether there was one."""
        with self._lock:
            left = [
                (kept.left_s, kept)
                for kept in self._kept.values()
                if kept.left_s is not None and kept.session.tenant == tenant
            ]
        if not left:
            return False
        _, first = min(left, key=lambda each: each[0])
        self._end(first, "made_room")
        if self._leases is not None:
            self._leases.release(first.session.id)
        return True

    def _admit(self, tenant: str) -> None:
        """Count a session of ``tenant`` that is being opened. Raises Overloaded, and counts that,
        where it may have no more, or the server has no room."""
        try:
            self._reserve(tenant)
        except Overloaded:
            with self._lock:
                self._refused += 1
            raise

    def _reserve(self, tenant: str) -> None:
        most = self._rules.max_sessions_of_tenant
        while True:
            with self._lock:
                self._check_not_draining()
                own = sum(kept.session.tenant == tenant for kept in self._kept.values())
                own += self._opening[tenant]
                if most is None or own < most:
                    self._opening[tenant] += 1
                    break
            if not self._make_room(tenant):
                raise Overloaded(
                    f"{own} live sessions of the tenant run; allowed are {most}",
                    retry_after_s=_RETRY_AFTER_S,
                )
        try:
            self._begin_counted(tenant)
        except BaseException:
            with self._lock:
                self._left_opening(tenant)
            raise

    def _left_opening(self, tenant: str) -> None:
        """Count a session of ``tenant`` less that is being opened. The lock is held."""
        self._opening[tenant] -= 1
        if not self._opening[tenant]:
            del self._opening[tenant]

    def _begin_counted(self, tenant: str) -> None:
        try:
            self._count.begin(self._rules.max_sessions)
        except Overloaded:
            if not self._make_room(tenant):
                raise
            self._count.begin(self._rules.max_sessions)

    def _check_not_draining(self) -> None:
        if self._draining:
            raise Unavailable("the server is shutting down; ask another one")

    def _acquire(self, holder: str, model_id: str, call: Call) -> None:
        if self._leases is not None:
            self._leases.acquire(holder, model_id, call)
