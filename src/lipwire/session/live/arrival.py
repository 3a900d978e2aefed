"""When the audio of a piece of speech came: whether it is spoken while it comes, and how late its
pieces are."""

from typing import Final

_REAL_TIME: Final = 1.5
"""Audio that comes no faster than so many times as it is spoken is spoken while it comes."""
_SAME_PACE: Final = 1.01
_AHEAD_S: Final = 0.1
_KNOWN_AFTER_S: Final = 10.0
"""After so long, audio that came no faster than this many times as it is spoken, and this, comes
from a microphone: clocks differ by less."""
_REMEMBERED_S: Final = 10.0
"""Pieces that were late are remembered for one to two times this."""


class Arrival:
    """When the pieces of audio of one piece of speech came, and how late. The *lateness* of a piece
    is how many seconds after its due time it came. The first is due when it came; a piece that
    begins ``t`` seconds into the audio is due ``t`` seconds after that. Lateness is below 0 for a
    piece that came earlier. ``come_s`` is how much audio has come, in seconds. Not thread-safe."""

    __slots__ = (
        "_before_late_s",
        "_first_end_s",
        "_first_s",
        "_last_s",
        "_late_s",
        "_since_s",
        "come_s",
    )

    def __init__(self) -> None:
        self.come_s = 0.0
        """How much audio has come."""
        self._first_s = self._first_end_s = self._last_s = 0.0
        self._late_s = self._before_late_s = self._since_s = 0.0

    def add(self, seconds: float, now: float) -> None:
        """Note that the next ``seconds`` of audio came at time ``now``, in seconds of the session's
        clock, which never goes back. All other methods and properties follow from these calls."""
        if not self.come_s:
            self._first_s = self._since_s = now
            self._first_end_s = seconds
        else:
            late_s = (now - self._first_s) - self.come_s
            if now - self._since_s >= _REMEMBERED_S:
                self._before_late_s, self._late_s, self._since_s = self._late_s, late_s, now
            else:
                self._late_s = max(self._late_s, late_s)
        self.come_s += seconds
        self._last_s = now

    @property
    def is_live(self) -> bool:
        """Whether the audio comes about as fast as it is spoken, as from a microphone: all that
        came after the first piece came at 1.5 times the speed of speech at most. False while only
        one piece has come."""
        more_s = self.come_s - self._first_end_s
        return 0 < more_s <= _REAL_TIME * (self._last_s - self._first_s)

    @property
    def is_live_for_long(self) -> bool:
        """Whether audio has been coming for ten seconds or more, and no faster than it is spoken
        (by at most 1 % and 0.1 s), as from a microphone. False in the first ten seconds."""
        took_s = self._last_s - self._first_s
        more_s = self.come_s - self._first_end_s
        return took_s >= _KNOWN_AFTER_S and more_s <= _SAME_PACE * took_s + _AHEAD_S

    @property
    def jitter_s(self) -> float:
        """The greatest lateness of the pieces of the last 10 to 20 seconds, in seconds: 0 or
        more."""
        return max(0.0, self._latest_s)

    def due_s(self, at_s: float) -> float:
        """Return when the audio at ``at_s`` seconds from the beginning of the speech will have
        come, in seconds of the session's clock, if it is as late as the most delayed piece of the
        last 10 to 20 seconds. To be called only after the first ``add``."""
        return self._first_s + at_s + self._latest_s

    @property
    def _latest_s(self) -> float:
        return max(self._late_s, self._before_late_s)
