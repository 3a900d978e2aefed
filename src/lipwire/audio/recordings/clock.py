"""Decoded sound on one clock: holes in a file's time stamps become silence.

**Which time stamps count.** Containers that are made for several tracks (Matroska, MP4, MPEG-TS and
the like) say when a frame is heard. In the others time stamps are a count of samples, or of bytes,
and say nothing of their own.

**What is a hole.** A frame whose time stamp is a step of 15 ms or more behind the end of the frame
before, and that leaves the sound as much behind the clock: a pause, packets that were not sent
(Opus with DTX) or got lost. It becomes silence, up to MAX_HOLE_S. Smaller steps are rounding and
jitter, and clocks that drift move in smaller steps still: both are left alone, as players do.

**What is none.** One time stamp that differs from those around it is wrong. Time stamps that
jump back (two files put together) or ahead by more than MAX_HOLE_S begin a new count: the sound
goes on without a hole.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import av

from lipwire.audio.recordings.findings import Findings
from lipwire.audio.recordings.frames import silent_frame

MAX_HOLE_S: Final = 600.0
"""The longest hole that becomes silence."""

_LEAST_HOLE_S: Final = 0.015  # the shortest packets that are usual last 20 ms
_LEAST_LEAD_S: Final = 0.1  # encoders begin up to this late, which nobody sees or hears
_LEAST_JUMP_BACK_S: Final = 0.1
_NOTED_HOLE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded frame of audio (``frame``). ``time_s`` is when it is heard, in seconds from the
    beginning of the file; None where that is not known. ``lost_s`` is how many seconds could not be
    decoded between the frame before and this one."""

    frame: av.AudioFrame
    time_s: float | None  # when it is heard, from the beginning of the file; None: not known
    lost_s: float  # what could not be decoded between the frame before and this one


def on_one_clock(frames: Iterable[Decoded], findings: Findings) -> Iterator[av.AudioFrame]:
    """Yield the ``frame`` of each of ``frames``, which are in the order in which they were decoded,
    and frames of silence between them where the times (``time_s``) leave a hole or something could
    not be decoded (``lost_s``).

    A frame of silence is a second at most. Holes of more than ten minutes, and times that go back,
    are taken for wrong time stamps, and no silence is put there. Warnings are added to
    ``findings``, whose ``heard_s`` grows by the seconds that are yielded. Raises InvalidInput where
    something could not be decoded and ``findings`` does not allow damage.
    """
    clock = _Clock(findings)
    for frame, following in _pairs(frames):
        missing_s = clock.missing_s(frame, following)
        if missing_s > 0:
            yield from _silence(frame.frame, missing_s)
        clock.advance(frame, missing_s)
        yield frame.frame


class _Clock:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._begun = False
        self._timed = False  # whether a time stamp has been seen
        self._heard_s = 0.0  # sound and silence so far, of this file
        self._offset_s = 0.0  # what a time stamp has to be moved by
        self._late_s = 0.0  # how far the last time stamp was ahead of the sound

    def missing_s(self, frame: Decoded, following: Decoded | None) -> float:
        """Seconds of silence that belong in front of ``frame``."""
        lost_s = frame.lost_s if self._begun else 0.0  # junk in front of a file is not sound
        missing_s = lost_s
        if frame.time_s is not None:
            missing_s = self._step_s(frame.time_s, following, lost_s)
        at_s = self._findings.heard_s
        if lost_s:
            self._findings.damage(f"damaged {at_s:.2f} s after its beginning", missing_s)
        elif missing_s >= _NOTED_HOLE_S and self._begun:
            self._findings.note(
                f"nothing is recorded for {missing_s:.2f} s, {at_s:.2f} s after its beginning; "
                "it is silent there"
            )
        return missing_s

    def advance(self, frame: Decoded, silence_s: float) -> None:
        length_s = frame.frame.samples / max(1, frame.frame.sample_rate) + silence_s
        self._heard_s += length_s
        self._findings.heard_s += length_s
        self._begun = True

    def _step_s(self, time_s: float, following: Decoded | None, lost_s: float) -> float:
        if self._begun and not self._timed:
            self._offset_s = self._heard_s - time_s
        self._timed = True
        late_s = time_s + self._offset_s - self._heard_s
        step_s = late_s - self._late_s
        least_s = _LEAST_HOLE_S if self._begun else _LEAST_LEAD_S
        if step_s < -_LEAST_JUMP_BACK_S or late_s > MAX_HOLE_S:
            if self._begun and _returns(time_s, following):
                return lost_s
            if late_s > MAX_HOLE_S:
                self._findings.closed_up_s += late_s
                self._findings.note(
                    f"a time stamp jumps by {late_s:.0f} s, {self._findings.heard_s:.2f} s after "
                    f"its beginning; up to {MAX_HOLE_S:.0f} s are taken for silence"
                )
            self._offset_s = self._heard_s + lost_s - time_s
            self._late_s = 0.0
            return lost_s
        if step_s < least_s or late_s < least_s:
            self._late_s = late_s
            return 0.0
        if _returns(time_s, following):
            return lost_s
        self._late_s = 0.0
        return late_s


def _returns(time_s: float, following: Decoded | None) -> bool:
    """Whether the next frame is back before ``time_s``, which then is a wrong time stamp."""
    return (
        following is not None
        and following.time_s is not None
        and following.time_s < time_s - _LEAST_HOLE_S
    )


def _pairs(frames: Iterable[Decoded]) -> Iterator[tuple[Decoded, Decoded | None]]:
    before: Decoded | None = None
    for frame in frames:
        if before is not None:
            yield before, frame
        before = frame
    if before is not None:
        yield before, None


def _silence(like: av.AudioFrame, length_s: float) -> Iterator[av.AudioFrame]:
    """Frames of silence in the form of ``like``."""
    left = round(length_s * like.sample_rate)
    while left > 0:
        count = min(left, like.sample_rate)
        left -= count
        yield silent_frame(like, count)
