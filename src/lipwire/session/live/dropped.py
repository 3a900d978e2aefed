"""Frames that a live session left out, and when its client is told of them."""

from collections import Counter
from typing import Final, Literal

from lipwire.session.live.events import FramesDropped
from lipwire.session.live.settings import FRAME_MS

Reason = Literal["late", "pacing", "unread"]
"""As in ``FramesDropped``."""


class DroppedFrames:
    """Counts the frames that one live session left out, by the reason: "late" (a mouth was not made
    in time), "pacing" (the machine was too busy to compose) or "unread" (the client had not taken
    the frames before). ``total`` is their number since the session began. Not thread-safe: its
    owner calls it under the session's lock."""

    def __init__(self) -> None:
        self.of: Final[Counter[Reason]] = Counter()
        """By the reason, since the start of the session."""
        self._untold: dict[Reason, int] = {}
        self._told_second = 0

    @property
    def total(self) -> int:
        """How many frames were left out since the start of the session."""
        return self.of.total()

    def add(self, reason: Reason) -> None:
        """Count one frame that is left out for ``reason``, and remember it until the client is told
        of it (``to_tell``, ``all_untold``)."""
        self.of[reason] += 1
        self._untold[reason] = self._untold.get(reason, 0) + 1

    def to_tell(self, frame: int) -> list[FramesDropped]:
        """Return one event for each reason for which frames were left out since the client was last
        told, and count these frames as told. Returns an empty list where there were none, or where
        the client was last told in the same second of the session's clock; nothing is told in the
        first second. ``frame`` is the number of the next frame to leave, at 25 a second."""
        second = frame * FRAME_MS // 1000
        if not self._untold or second == self._told_second:
            return []
        self._told_second = second
        return self.all_untold(frame)

    def all_untold(self, frame: int) -> list[FramesDropped]:
        """Return one event for each reason for which frames were left out since the client was last
        told, whenever that was, and count them as told; for use when the session ends. ``frame`` is
        the number of the next frame to leave, at 25 a second."""
        events = [
            FramesDropped(frame * FRAME_MS, count, reason)
            for reason, count in sorted(self._untold.items())
        ]
        self._untold.clear()
        return events
