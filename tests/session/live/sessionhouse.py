"""Sessions of a process with what they need, in virtual time."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.liveparts import SETTINGS, FakeAvatar, LiveTime

from lipwire.domain import AvatarInvalid, Call, NotFound, Overloaded, Unavailable
from lipwire.domain.versions import Choose, one_version
from lipwire.security import LiveMinutes
from lipwire.session.live import (
    LiveAvatar,
    LiveSession,
    LiveSessions,
    SessionRules,
    SessionUsage,
)
from lipwire.session.live.observer import NO_OBSERVER, SessionObserver


class FakeLeases:
    """Shares for ``most`` sessions."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most
        self.held: dict[str, str] = {}
        self.acquired: Counter[str] = Counter()
        self.fails = False
        self.meanwhile: Callable[[], object] = lambda: None
        """Called while one is asked for."""

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        assert call.service == "live"
        self.meanwhile()
        if self.fails:
            raise Unavailable("gone")
        if holder not in self.held and len(self.held) >= self.most:
            raise Overloaded(f"{len(self.held)} are held; {self.most} fit", retry_after_s=2.0)
        self.held[holder] = model_id
        self.acquired[holder] += 1

    def release(self, holder: str) -> None:
        self.held.pop(holder, None)


class House(LiveTime):
    """Sessions with what they need."""

    def __init__(
        self,
        rules: SessionRules | None = None,
        *,
        leases: FakeLeases | None = None,
        minutes: Callable[[Callable[[], float]], LiveMinutes] | None = None,
        shared: Any = None,
        on_end: Callable[[SessionUsage], object] = lambda usage: None,
        choose: Choose = one_version,
        observer: SessionObserver = NO_OBSERVER,
    ) -> None:
        """``minutes(clock)`` makes what counts how long sessions last."""
        super().__init__()
        self.avatars: list[FakeAvatar] = []
        self.asked: list[str] = []
        self.leases = leases or FakeLeases()
        self.on_open: Callable[[], object] = lambda: None
        self.sessions = LiveSessions(
            self._open_avatar,
            self.threads,
            rules=rules,
            leases=self.leases,
            minutes=None if minutes is None else minutes(self.clock),
            shared=shared,
            on_end=on_end,
            choose=choose,
            observer=observer,
            clock=self.clock,
        )

    def _open_avatar(self, model_id: str, call: Call) -> LiveAvatar:
        self.asked.append(model_id)
        if model_id == "unknown":
            raise NotFound("no avatar unknown")
        self.on_open()
        avatar = FakeAvatar(len(self.avatars) % 100)
        if model_id == "broken":
            avatar = FakeAvatar(complete=False, on_rest=self._broken)
        self.avatars.append(avatar)
        return avatar.live()

    @staticmethod
    def _broken(position: int) -> None:
        raise AvatarInvalid("broken")

    def open(self, model_id: str = "anna", *, tenant: str = "", attach: bool = True) -> LiveSession:
        session = self.sessions.open(
            model_id, SETTINGS, tenant=tenant, call=Call(1.0, service="live")
        )
        session.fill_outbox()
        if attach:
            self.sessions.attach(session)
        return session

    @property
    def closed(self) -> list[int]:
        return [avatar.closed for avatar in self.avatars]

    def ended(self) -> dict[str, int]:
        return self.sessions.stats().ended
