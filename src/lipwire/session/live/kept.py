"""What is known of a live session that runs, besides the session itself."""

from collections.abc import Callable
from dataclasses import dataclass

from lipwire.security.shared.sessions import Place
from lipwire.session.live.livesession import LiveSession
from lipwire.session.live.usage import SessionUsage


@dataclass(slots=True)
class Kept:
    """A live session that runs, and what the rules of its server need to know of it; times are in
    seconds of the server's clock. ``LiveSessions`` changes it under its lock."""

    session: LiveSession
    model_id: str
    """The avatar that was asked for last."""
    who: str
    """By which text versions are chosen for it."""
    loaded_as: str
    """The name of its version; ``model_id`` where there is one alone."""
    began_s: float
    active_s: float
    """When something was last said to it."""
    renewed_s: float
    """When its lease was last renewed, or was to be."""
    counted_s: float
    """Until when its time was counted for its tenant."""
    lasts_s: float | None = None
    """How long it lasts at most, where that is not for the rules of all sessions to say."""
    on_end: Callable[[], object] | None = None
    place: Place | None = None
    """Its place among those of its tenant at all servers."""
    joined: bool = False
    attached: int = 0
    left_s: float | None = None
    """When its last client left."""
    renewing: bool = False
    """Whether its lease is being renewed, or waits for a worker to be."""
    before: tuple[str, str] | None = None
    """The name and the ``model_id`` of the avatar that was shown when another was asked for."""

    def change(self, model_id: str, loaded_as: str, shown: str) -> None:
        """Note that the session is to show avatar ``model_id`` next, the version that is loaded
        under the name ``loaded_as``. ``shown`` is the name (``LiveAvatar.name``) of the avatar that
        was shown when the change was asked for."""
        if self.before is None or self.before[0] != shown:
            self.before = shown, self.model_id
        self.model_id, self.loaded_as = model_id, loaded_as

    def usage(self, because: str, now: float) -> SessionUsage:
        """Return what the session has used until ``now``, when it ends for the reason
        ``because``."""
        counts = self.session.counts
        return SessionUsage(
            self.session.tenant,
            self.model_id,
            now - self.began_s,
            counts.spoken_ms / 1000,
            counts.frames,
            counts.mouths,
            because,
        )

    @property
    def shows(self) -> set[str]:
        """The names of the avatar that was asked for last and, until it is shown, of the one that
        is shown now."""
        if self.before is not None and self.session.avatar.name == self.before[0]:
            return {self.model_id, self.before[1]}
        return {self.model_id}
