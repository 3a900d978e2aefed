"""What a live session tells, in plain words, and what its frames were like in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lipwire.domain import percentile
from lipwire.rpc.received import Ended, Refused
from lipwire.session.live import (
    FRAME_MS,
    FramesDropped,
    GoingAway,
    LiveFrame,
    Sound,
    SpeechBegan,
    SpeechEnded,
    StateChanged,
)

if TYPE_CHECKING:
    from lipwire.rpc.received import Received

_REASONS: Final = {
    "late": "their mouths were not made in time",
    "pacing": "the server was too busy to show them",
    "unread": "they were not read in time here",
}
_STATES: Final = {
    "idle": "at rest",
    "listening": "listening",
    "speaking": "speaking",
    "interrupted": "interrupted: the mouth closes",
    "closed": "closed",
}


def told(received: Received) -> str:
    """Return one line of text for people about ``received``, an event of a live session, with the
    session's time where it has one. Returns an empty text for frames and sound."""
    match received:
        case StateChanged():
            text = _STATES[received.state.value]
        case SpeechBegan():
            text = f"speech {received.speech} begins"
        case SpeechEnded():
            text = f"speech {received.speech} ends, {received.spoken_ms / 1000:.2f} s spoken"
            if received.interrupted:
                text += f", interrupted with {received.left_ms / 1000:.2f} s left"
        case FramesDropped():
            reason = _REASONS.get(received.reason, received.reason)
            frames = "1 frame" if received.count == 1 else f"{received.count} frames"
            text = f"{frames} dropped ({received.reason}): {reason}"
        case GoingAway():
            text = f"the server ends the session in {received.left_s:.0f} s: {received.reason}"
        case Refused():
            return f"           refused: {received.error_code}: {received.error}"
        case Ended():
            return f"           the session has ended: {received.reason}"
        case _:
            return ""
    return f"{received.at_ms / 1000:8.2f} s {text}"


class Figures:
    """Counts and times the frames and sound that arrive from a live session. All times are in
    seconds of one clock, which the caller chooses."""

    def __init__(self, asked_s: float) -> None:
        """``asked_s`` is when the session was asked for."""
        self._asked_s = asked_s
        self._first_frame_s: float | None = None
        self._speech_s: float | None = None
        self._late_s: list[float] = []
        self._frames: set[int] = set()
        self._sounds: list[int] = []

    def take(self, received: Received, now: float) -> None:
        """Count ``received``, which has arrived from the session at time ``now``, where it is a
        frame or sound. Events are ignored."""
        if isinstance(received, LiveFrame):
            if self._first_frame_s is None:
                self._first_frame_s = now
            if received.speech and self._speech_s is None:
                self._speech_s = now
            self._frames.add(received.frame)
            self._late_s.append(now - received.at_ms / 1000)
        elif isinstance(received, Sound):
            self._sounds.append(received.frame)

    @property
    def shown(self) -> int:
        """How many frames have arrived, a frame that arrived twice counted once. Frames are told
        apart by their numbers (``LiveFrame.frame``), not by their pixels."""
        return len(self._frames)

    @property
    def dropped(self) -> int:
        """How many frames were left out: frames before the last one that arrived, whose sound
        arrived without a picture."""
        last = max(self._frames, default=-1)
        return sum(frame <= last and frame not in self._frames for frame in self._sounds)

    @property
    def holes(self) -> int:
        """The number of gaps in the sound that arrived: places where the sound of one or more
        successive frames is missing."""
        pairs = zip(self._sounds, self._sounds[1:], strict=False)
        return sum(after != before + 1 for before, after in pairs)

    def rows(self, speech_sent_s: float | None) -> list[tuple[str, str]]:
        """Return the figures as rows for a table, (name, value with its unit) each.
        ``speech_sent_s`` is when the first piece of speech was sent; None where none was. A figure
        that was not measured has no row."""
        rows = []
        if self._first_frame_s is not None:
            first_ms = (self._first_frame_s - self._asked_s) * 1000
            rows.append(("session asked for to first frame", f"{first_ms:.0f} ms"))
        if self._speech_s is not None and speech_sent_s is not None:
            speech_ms = (self._speech_s - speech_sent_s) * 1000
            rows.append(("first audio sent to first frame of speech", f"{speech_ms:.0f} ms"))
        if self._late_s:
            # Where the session's clock began is not known here; the earliest frame says it best.
            began_s = min(self._late_s)
            late_ms = [(late_s - began_s) * 1000 for late_s in self._late_s]
            rows.append(
                (
                    "frames behind the session's clock, median / p99",
                    f"{percentile(late_ms, 50):.1f} / {percentile(late_ms, 99):.1f} ms",
                )
            )
        rows.append(("frames shown", str(self.shown)))
        rows.append(("frames dropped", str(self.dropped)))
        seconds = len(self._sounds) * FRAME_MS / 1000
        whole = "without a gap" if not self.holes else f"with {self.holes} gaps"
        rows.append(("sound", f"{seconds:.2f} s, {whole}"))
        return rows
