"""When the frames of a live session are due: a grid of 40 ms whose phase follows the speech.

Audio of a microphone comes at any moment of a frame's time. On a fixed grid its frames would wait
for the next due time, 20 ms in the mean. So the grid is moved where speech begins: the frames at
rest before it last a little shorter or longer. Time stamps are numbers of frames and do not change;
frame *n* is due ``n * 40 ms`` after the start, and less than a frame earlier or later.
"""

from typing import Final

from lipwire.session.live.settings import FRAME_MS

_FRAME_S: Final = FRAME_MS / 1000
_SHORTEST_S: Final = 0.015
"""A frame lasts at least so long where the next one is moved towards it, so that it is composed
before that leaves."""


class FrameGrid:
    """When the frames of one session are due, in seconds of the session's clock: 40 ms apart, and
    the whole grid may be moved by less than a frame. Not thread-safe: its owner calls it under the
    session's lock."""

    def __init__(self) -> None:
        self._start_s: float | None = None
        self._phase_s = 0.0

    @property
    def started(self) -> bool:
        """Whether ``start`` was called."""
        return self._start_s is not None

    @property
    def phase_s(self) -> float:
        """How much later each frame is due than its number times 40 ms after the start, in seconds;
        negative for earlier. Always less than a frame (40 ms), earlier or later."""
        return self._phase_s

    def start(self, now: float) -> None:
        """Have frame 0 due at time ``now``, in seconds of the session's clock."""
        self._start_s = now

    def due_s(self, frame: int) -> float:
        """Return when the frame with the number ``frame`` (from 0) is due, in seconds of the
        session's clock. Only once ``start`` was called."""
        assert self._start_s is not None
        return self._start_s + frame * FRAME_MS / 1000 + self._phase_s

    def align(self, first: int, ready_s: float) -> int:
        """Move the grid, by as little as can be, so that some frame is due at ``ready_s`` (seconds
        of the session's clock), and return the number of that frame. Where its number would be
        below ``first``, nothing is moved and ``first`` is returned. Only once ``start`` was
        called."""
        assert self._start_s is not None
        since_s = ready_s - self._start_s
        frame = round((since_s - self._phase_s) / _FRAME_S)  # by as little as can be
        phase_s = since_s - frame * _FRAME_S
        if abs(phase_s) >= _FRAME_S:
            frame += 1 if phase_s > 0 else -1
            phase_s = since_s - frame * _FRAME_S
        if frame < first:
            return first
        self._phase_s = phase_s
        return frame

    def shorten(self, frame: int, ready_s: float) -> None:
        """Where frame number ``frame`` would be due later than ``ready_s`` (seconds of the
        session's clock), have it and all later ones due earlier: at ``ready_s``, or later, if need
        be, so that the frame before it, which has just left, lasts 15 ms at least. Does nothing
        where ``frame`` is due at ``ready_s`` or before, or where the grid would be a whole frame
        earlier than at the start."""
        earlier_s = min(self.due_s(frame) - ready_s, _FRAME_S - _SHORTEST_S)
        if earlier_s > 0 and self._phase_s - earlier_s > -_FRAME_S:
            self._phase_s -= earlier_s
