"""All live sessions of a process: admitting them, finding them again, ending them."""

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from lipwire.domain import Call, LipwireError, NotFound, Overloaded, Unavailable
from lipwire.domain.closing import Closing
from lipwire.domain.versions import Choose, one_version, who_of
from lipwire.security import LiveMinutes
from lipwire.security.shared.sessions import Place, SharedSessions
from lipwire.serving.leases import LEASE_S
from lipwire.session.live.counting import OwnCount, SessionCount
from lipwire.session.live.kept import Kept
from lipwire.session.live.leasing import Leases, SessionLeases
from lipwire.session.live.liveavatar import LiveAvatar
from lipwire.session.live.livesession import LiveSession
from lipwire.session.live.mouthtimes import MouthTimes
from lipwire.session.live.observer import NO_OBSERVER, Observed, SessionObserver
from lipwire.session.live.rules import SessionRules
from lipwire.session.live.settings import SessionSettings
from lipwire.session.live.threads import LiveThreads
from lipwire.session.live.usage import SessionsStats, SessionUsage

NO_SESSION: Final = "there is no such session; it may have ended"
"""What is said of an id that no session has."""
_LOG: Final = logging.getLogger(__name__)
_EVERY_S: Final = 1.0
"""How often sessions are looked at."""
_RETRY_AFTER_S: Final = 5.0
_SETTLES_S: Final = 2.0
"""How long a new session waits for the leases of those that have just ended."""
_RENEW_EVERY_S: Final = LEASE_S / 3
"""How often leases are renewed."""


class LiveSessions(Closing):
    """The live sessions of a process: it admits them, finds them by id, and ends them when their
    time is over by its ``SessionRules``. Methods that are given a session that has ended do
    nothing, unless they say otherwise. The empty name is a tenant like any other. Thread-safe; a
    context manager."""

    def __init__(
        self,
        open_avatar: Callable[[str, Call], LiveAvatar],
        threads: LiveThreads,
        *,
        rules: SessionRules | None = None,
        leases: Leases | None = None,
        count: SessionCount | None = None,
        prefix: str = "",
        minutes: LiveMinutes | None = None,
        shared: SharedSessions | None = None,
        on_end: Callable[[SessionUsage], object] = lambda usage: None,
        observer: SessionObserver = NO_OBSERVER,
        choose: Choose = one_version,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``open_avatar(name, call)`` opens an avatar, which its session closes; ``choose(model_id,
        who, "live")`` returns a context manager that gives the version to show (``Chosen``), under
        whose ``name`` it is opened; by default each avatar has one. ``threads`` are closed by
        whoever opened them. ``leases`` reserves the machine's time; None where that is not limited.
        ``count`` counts the sessions of all the server's processes; None where this is the only
        one. ``prefix`` is what the sessions' ids begin with. ``minutes`` counts how long they last;
        None where that is not limited. ``shared`` counts tenants' sessions at all servers; None
        where this one is alone. ``on_end`` is called with what each session has used, ``observer``
        for what happens in them. ``clock`` is that of ``threads.pacer``."""
        self._open_avatar = open_avatar
        self._threads = threads
        self._rules = rules or SessionRules()
        self._leases = SessionLeases(leases, threads)
        self._count = count or OwnCount()
        self._prefix = prefix
        self._minutes = minutes
        self._shared = shared
        self._on_end = on_end
        self._observer = observer
        self._choose = choose
        self._clock = clock
        self._times = MouthTimes()
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
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
        lasts_s: float | None = None,
    ) -> LiveSession:
        """Begin a session with avatar ``model_id``, for ``tenant``, and return it when its first
        frame leaves: waits until the avatar is loaded. ``call`` is the request that asks for the
        session; its deadline limits the wait. Which version of the avatar is shown depends on the
        client of ``call``, or without one on the session's id. ``settings`` say how the session is
        to behave. With ``with_outbox`` its ``outbox`` keeps frames, sound and events for a client,
        from the first frame on. ``lasts_s`` is how many seconds it lasts at most; None: only the
        rules say. It ends unless a client is attached (``attach``) within
        ``SessionRules.nobody_joined_timeout_s``. Where there is no room, the session of the same
        tenant whose client left first is ended for it.

        Raises Overloaded where there are still too many or the machine has no time or memory left
        for one more, MinutesUsedUp where the tenant has had its minutes of the month, Unavailable
        once draining or where no server can run the network, AvatarChanged where the avatar is
        being replaced now, NotFound where there is none, AvatarInvalid where its files are damaged,
        InvalidInput where it has no audio encoder, DeadlineExceeded once ``call``'s time is over.
        """
        if self._minutes is not None:
            self._minutes.check(tenant)
        asked_s = self._clock()
        place = self._admit(tenant)
        session = None
        try:
            session_id = self._prefix + secrets.token_urlsafe(16)
            who = who_of(tenant, call.client or session_id)
            with self._choose(model_id, who, "live") as chosen:
                avatar = self._open_avatar(chosen.name, call)
                session = LiveSession(
                    avatar,
                    settings,
                    self._threads,
                    tenant=tenant,
                    session_id=session_id,
                    times=self._times,
                    observed=Observed(self._observer.of(chosen), self._clock, asked_s),
                    clock=self._clock,
                )
                self._find_room(session_id, chosen.name, tenant, call)
                if with_outbox:
                    session.fill_outbox()
                session.start()
                now = self._clock()
                kept = Kept(
                    session, model_id, who, chosen.name, now, now, now, now, lasts_s, place=place
                )
                with self._lock:
                    self._check_not_draining()
                    self._left_opening(tenant)
                    self._opened += 1
                    self._kept[session_id] = kept
        except BaseException as error:
            with self._lock:
                self._left_opening(tenant)
                self._refused += isinstance(error, Overloaded)
            self._count.end()
            self._leave(place)
            if session is not None:
                session.close("refused")
                self._leases.release(session.id)
            raise
        return session

    def change_avatar(self, session: LiveSession, model_id: str, call: Call) -> None:
        """Have ``session`` show avatar ``model_id`` as soon as nobody speaks. Returns when it is
        loaded and its first mouth for silence was made, for which it waits up to 10 s. ``call`` is
        the request that asks for it; its deadline limits the loading.

        Raises Overloaded where the machine has no time or memory left for that avatar, Unavailable
        where no server can run its network, AvatarChanged where it is being replaced at this
        moment, NotFound where there is none, AvatarInvalid where its files are damaged or its
        network fails, InvalidInput where it has no audio encoder, and DeadlineExceeded once the
        time of ``call`` is over. The session then goes on with the avatar that it has.
        """
        with self._lock:
            kept = self._kept.get(session.id)
        who = session.id if kept is None else kept.who
        with self._choose(model_id, who, "live") as chosen:
            avatar = self._open_avatar(chosen.name, call)
            try:
                self._leases.acquire(session.id, chosen.name, call)
            except BaseException:
                avatar.close()
                raise
            shown = session.avatar.name
            session.change_avatar(avatar)
        session.observed.observer = self._observer.of(chosen)
        if kept is not None:
            with self._lock:
                kept.change(model_id, chosen.name, shown)
        if session.closed:  # it has given its lease back already
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
        """Return the running sessions that were opened with just this ``tenant``, the oldest first;
        the empty name is a tenant too."""
        with self._lock:
            sessions = [kept.session for kept in self._kept.values()]
        return [one for one in sessions if one.tenant == tenant and not one.closed]

    def attach(self, session: LiveSession) -> None:
        """Note that one more client reads what ``session`` sends: the session does not end for want
        of a client until ``detach`` is called for this one. Where all earlier clients have gone,
        what waits in ``session.outbox`` is dropped."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is None:
                return
            if kept.joined and not kept.attached:
                session.outbox.clear()
            kept.joined = True
            kept.attached += 1
            kept.left_s = None

    def detach(self, session: LiveSession) -> None:
        """Note that a client of ``session``, which was attached, has gone. Where no other is
        attached, the session ends unless one is attached within
        ``SessionRules.reconnect_grace_s``."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is None:
                return
            kept.attached = max(0, kept.attached - 1)
            if not kept.attached:
                kept.left_s = self._clock()
        if self._rules.reconnect_grace_s == 0:
            self._look(kept, self._clock())

    def when_ended(self, session: LiveSession, ended: Callable[[], object]) -> None:
        """Have ``ended()`` called, once, in some thread, when ``session`` has ended; in this thread
        where it has already. Only one function is kept for a session: a later one replaces it."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is not None:
                kept.on_end = ended
        if kept is None:
            ended()

    def keep_alive(self, session: LiveSession) -> None:
        """Note that ``session`` is wanted though nothing is said: the time after which an idle
        session ends (``SessionRules.max_idle_s``) begins anew."""
        with self._lock:
            kept = self._kept.get(session.id)
            if kept is not None:
                kept.active_s = self._clock()

    @property
    def running(self) -> int:
        """How many live sessions run, or are being opened, in all processes of the server."""
        return self._count.running

    def stats(self) -> SessionsStats:
        """Return how many sessions there are now, those that are being opened included, and how
        many were opened, were refused and have ended since this object was made, in this
        process."""
        with self._lock:
            return SessionsStats(
                len(self._kept) + self._opening.total(),
                self._opening.total(),
                self._rules.max_sessions,
                self._opened,
                self._refused,
                dict(self._ended),
            )

    def drain(self, left_s: float) -> None:
        """Begin no more sessions (``open`` raises Unavailable), and tell the clients of the others
        that they have ``left_s`` seconds to leave. Does not wait for that and ends no session; use
        ``close``."""
        with self._lock:
            self._draining = True
            sessions = [kept.session for kept in self._kept.values()]
        for session in sessions:
            session.going_away("the server is shutting down", left_s)

    def close(self) -> None:
        """End all sessions, telling their clients that the server has stopped (Unavailable), and
        begin no more. Does not close ``threads``. Closing twice is allowed."""
        with self._lock:
            self._draining = True
            every = list(self._kept.values())
        self._threads.pacer.remove(self)
        for kept in every:
            self._end(kept, "the server is shutting down", Unavailable("the server has stopped"))

    # -- the pacing thread -------------------------------------------------------------------------

    def on_due(self, now: float) -> float:
        """End the sessions whose time is over at ``now``, in seconds of the clock, and renew the
        leases of the others; return when to be called again. For the pacing thread (``Paced``)."""
        with self._lock:
            every = list(self._kept.values())
        for kept in every:
            self._look(kept, now)
        if every and self._minutes is not None and self._minutes.due:
            self._threads.workers.submit(self._minutes.sync)
        return now + _EVERY_S

    def _look(self, kept: Kept, now: float) -> None:
        session, rules = kept.session, self._rules
        if session.closed:
            self._end(kept, session.ended_because or "closed")
            return
        if not self._counted(kept, now):
            self._end(kept, "minutes_used_up")
            return
        kept.active_s = max(kept.active_s, session.pushed_s if session.silent else now)
        for reason, since_s, limit_s in (
            ("max_duration", kept.began_s, rules.max_duration_s),
            ("ticket_over", kept.began_s, kept.lasts_s),
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
        due = now - kept.renewed_s >= _RENEW_EVERY_S and not kept.renewing
        if due and self._leases.limited:
            kept.renewed_s, kept.renewing = now, True
            self._threads.workers.submit(self._renew, kept)

    def _counted(self, kept: Kept, now: float) -> bool:
        """Count the time of a session for its tenant; whether the tenant has more of it."""
        if self._minutes is None:
            return True
        with self._lock:
            passed_s, kept.counted_s = now - kept.counted_s, max(now, kept.counted_s)
        return self._minutes.spend(kept.session.tenant, max(0.0, passed_s))

    def _renew(self, kept: Kept) -> None:
        """Renew the lease; a session that runs is not ended where that fails, but tries again."""
        try:
            call = Call(_RENEW_EVERY_S, service="live")
            self._leases.acquire(kept.session.id, kept.loaded_as, call)
        except LipwireError as error:
            _LOG.info("the lease of a live session was not renewed: %s", error)
        finally:
            kept.renewing = False
        if kept.session.closed:
            self._leases.release(kept.session.id)

    def _end(self, kept: Kept, because: str, error: LipwireError | None = None) -> None:
        with self._lock:
            if self._kept.pop(kept.session.id, None) is None:
                return
            self._ended[because] = self._ended.get(because, 0) + 1
        self._leases.release_later(kept.session.id)  # who is let in for this can wait for it
        self._count.end()
        if kept.place is not None:
            self._threads.workers.submit(self._leave, kept.place)
        self._counted(kept, self._clock())
        kept.session.close(because, error)
        if error is None and kept.session.error is not None:  # not for the server's own end
            kept.session.observed.observer.failed(kept.session.error.code)
        self._threads.workers.submit(self._on_end, kept.usage(because, self._clock()))
        if kept.on_end is not None:
            self._threads.workers.submit(kept.on_end)

    def end(self, session: LiveSession) -> None:
        """End ``session`` because its client asked for that ("closed"). Ending twice is allowed."""
        with self._lock:
            kept = self._kept.get(session.id)
        if kept is not None:
            self._end(kept, "closed")
        session.close("closed")

    def shown(self) -> set[str]:
        """Return the names of the avatars that the running sessions show or are to show next."""
        with self._lock:
            return {name for kept in self._kept.values() for name in kept.shows}

    def end_all_of(self, model_id: str) -> None:
        """End all sessions that show avatar ``model_id`` or are to show it next, as it was removed:
        their clients are told "avatar_removed"."""
        with self._lock:
            gone = [kept for kept in self._kept.values() if model_id in kept.shows]
        for kept in gone:
            self._end(kept, "avatar_removed")

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
        self._leave(first.place)  # at once, for who is let in for it
        self._end(first, "made_room")
        return True

    def _admit(self, tenant: str) -> Place | None:
        """Count a session of ``tenant`` that is being opened, and return its place among those of
        the tenant at all servers. Raises Overloaded, and counts that, where it may have no more, or
        the server has no room."""
        try:
            return self._reserve(tenant)
        except Overloaded:
            with self._lock:
                self._refused += 1
            raise

    def _reserve(self, tenant: str) -> Place | None:
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
        place = None
        try:
            place = self._find_place(tenant)
            self._begin_counted(tenant)
        except BaseException:
            with self._lock:
                self._left_opening(tenant)
            self._leave(place)
            raise
        return place

    def _find_place(self, tenant: str) -> Place | None:
        most = self._rules.max_sessions_of_tenant
        if self._shared is None or most is None:
            return None
        try:
            return self._shared.begin(tenant, most)
        except Overloaded:
            if not self._make_room(tenant):
                raise
        return self._shared.begin(tenant, most)

    def _leave(self, place: Place | None) -> None:
        if self._shared is not None and place is not None:
            self._shared.end(place)

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

    def _find_room(self, session_id: str, name: str, tenant: str, call: Call) -> None:
        """Acquire the lease of a new session of ``tenant``. Where there is no room, that of
        sessions which have just ended is waited for, then one is ended whose client has left.
        Raises Overloaded where there is no room even then."""
        try:
            self._leases.acquire(session_id, name, call)
            return
        except Overloaded:
            self._settle(call)
        try:  # also where no lease is ending: the last one may have ended meanwhile
            self._leases.acquire(session_id, name, call)
            return
        except Overloaded:
            if not self._make_room(tenant):
                raise
            self._settle(call)
        self._leases.acquire(session_id, name, call)

    def _settle(self, call: Call) -> None:
        left_s = call.remaining_s()
        self._leases.settle(_SETTLES_S if left_s is None else max(0.0, min(_SETTLES_S, left_s)))
