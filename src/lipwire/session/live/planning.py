"""When speech is shown, and which frames' mouths are made next."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from lipwire.domain import AudioWindows
from lipwire.session.live.settings import FRAME_MS, SessionSettings
from lipwire.session.live.spoken import Made, Speech

_AHEAD_FRAMES: Final = 12
"""Mouths are made for so many frames ahead at most: more would be for nothing after an
interruption."""
_WORK_FRAMES: Final = 4
"""Frames whose mouths are asked for at a time, at most."""
_MOST_IN_HAND: Final = 2
"""So many times mouths are asked for before those asked for first have come, at most. More would
only wait for each other where a machine has few cores."""
_FIRST_PROCESSING_S: Final = 0.03
"""How long hearing and making a frame is expected to take before it was ever measured."""
_MARGIN: Final = 1.3
_DEVIATIONS: Final = 2.0
_MOST_DEVIATION_S: Final = 2 * FRAME_MS / 1000
_COMPOSE_S: Final = 0.005
"""What is planned for: so many times the measured time of a mouth, or that and so many times its
mean deviation (so much at most), whichever is longer, and so long for composing it."""
_MOST_PROCESSING_S: Final = _AHEAD_FRAMES * 0.75 * FRAME_MS / 1000
"""A mouth is tried for where there is so much time left, however long others have taken."""
_WEIGHT: Final = 0.2
"""Of the newest measurement in the running mean."""
_JITTER_MARGIN: Final = 0.25
"""Pieces of audio are expected to come later than they have by so much of their jitter."""
_CORRECTED_EVERY_FRAMES: Final = 5
_EXCESS_S: Final = 2 * FRAME_MS / 1000
"""Speech that comes while it is spoken is shown earlier by a frame where it would still be in time
so much earlier."""
_LATE_OF: Final = 8
_MOST_LATE: Final = 2
"""Speech that comes while it is spoken is shown later where more than this many of so many frames
had no mouth in time."""
_MOST_DELAYED_FRAMES: Final = 3
"""By so many frames it is delayed for that, at most: where a network makes too few mouths, no delay
is enough."""
MOST_WAITED_FRAMES: Final = 25
"""How long the first mouth of a piece of speech is waited for before it is spoken without."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Frames whose mouths are to be made now."""

    speech: Speech
    first: int
    """Number of the first frame in the piece of speech."""
    position: int
    """Position of the first frame: which frame of the avatar the network is shown."""
    windows: AudioWindows
    """(n, 32, 16, 16) float32."""
    due_s: float | None
    """When the first of them is due at the latest; None where they are waited for."""
    asked_s: float
    """When they were asked for."""


class Planning:
    """Plans the frames of one session by how long its mouths have taken. Its owner's lock guards
    it.

    ``position`` is everywhere that of the next frame to leave, and ``due_s`` when that is due.
    """

    def __init__(self, settings: SessionSettings) -> None:
        self._settings: Final = settings
        self._frame_s = _FIRST_PROCESSING_S
        """Time for each mouth of those that are asked for together."""
        self._alone_s = _FIRST_PROCESSING_S
        """Time of a mouth that is asked for alone."""
        self._deviation_s = 0.0
        self._measured = False
        self._corrected_s = -math.inf
        self._late: deque[bool] = deque(maxlen=_LATE_OF)
        """Which of the latest frames had no mouth in time."""
        self._delayed = 0

    def took(self, seconds: float, frames: int) -> None:
        """Note that ``frames`` mouths that were asked for together took ``seconds`` from being
        asked for until they were there."""
        frame_s = seconds / frames
        weight = _WEIGHT if self._measured else 1.0
        self._measured = True
        self._frame_s += weight * (frame_s - self._frame_s)
        # Of several, some may have been made side by side: one alone takes as long as they at most,
        # and as long as a part of them at least.
        alone_s = min(max(self._alone_s, frame_s), seconds)
        difference_s = alone_s - self._alone_s
        self._alone_s += weight * difference_s
        self._deviation_s += _WEIGHT * (abs(difference_s) - self._deviation_s)

    def spoke(self, *, late: bool) -> None:
        """Note that a frame of speech was due; ``late`` says that its mouth was not there in
        time."""
        self._late.append(late)

    @property
    def most_in_hand(self) -> int:
        """How many requests for mouths may be under way at once, 1 or 2: 2 only where a mouth takes
        about the time of a frame or longer, so that they have to overlap to be in time."""
        frames = self._alone_s * _MARGIN * 1000 / FRAME_MS
        return min(max(1, math.ceil(frames)), _MOST_IN_HAND)

    def lead(self, speech: Speech, now: float, due_s: float) -> int:
        """Return how many frames after the next one (due at ``due_s``) the first frame of
        ``speech`` can be shown, 0 or more. ``now`` is the present, when its first audio has been
        heard. Times are seconds of the session's clock."""
        ready_s = now + self._takes_s
        if speech.arrival.is_live and not speech.ended:
            jitter_s = speech.arrival.jitter_s * _JITTER_MARGIN
            ready_s = max(ready_s, self._ready_s(speech, 0) + jitter_s)
        return max(0, math.ceil((ready_s - due_s) * 1000 / FRAME_MS))

    def is_early(self, speech: Speech, due_s: float) -> bool:
        """Return whether ``speech``, which has not begun, would begin too early if the next frame,
        due at ``due_s``, were its first: its audio comes as it is spoken, and the mouths of its
        later frames would not be there in time."""
        if speech.ended or not speech.arrival.is_live:
            return False
        return due_s < self._ready_s(speech, 0)

    def wants_delay(self, speech: Speech, due_s: float) -> bool:
        """Return whether ``speech`` should be shown a frame later from the next one on, due at
        ``due_s``, even where somebody speaks in it, as too many of its mouths were not there in
        time."""
        if speech.ended or not speech.arrival.is_live or not self._may_correct(due_s):
            return False
        return sum(self._late) > _MOST_LATE and self._delayed < _MOST_DELAYED_FRAMES

    def correction(self, speech: Speech, number: int, due_s: float) -> int:
        """Return by how many frames ``speech`` should be shown later from its frame ``number`` on,
        which is the next to leave and due at ``due_s``: 1, 0 or -1 (earlier). 0 where its audio
        does not come as it is spoken. The clock of a microphone differs from that of the session,
        and the jitter of a connection changes."""
        arrival = speech.arrival
        if speech.ended or not arrival.is_live_for_long:
            return 0
        if not self._may_correct(due_s):
            return 0
        spare_s = due_s - self._ready_s(speech, number)
        correction = 0
        if spare_s < 0:
            correction = 1
        elif spare_s - arrival.jitter_s * _JITTER_MARGIN > _EXCESS_S:
            correction = -1
        return correction

    def corrected(self, correction: int, due_s: float) -> None:
        """Note that speech is shown a frame later (``correction`` 1) or earlier (-1) from the frame
        on that is due at ``due_s``: no further correction is wanted for five frames."""
        self._corrected_s = due_s
        self._delayed = max(0, self._delayed + correction)
        self._late.clear()

    def work_of(self, speech: Speech, position: int, now: float, due_s: float) -> Work | None:
        """Return the frames of ``speech`` whose mouths are to be made now, up to 4; None where
        there are none. They are no longer in ``speech.waiting`` then, and are in ``speech.made``.

        ``speech.begins`` has to be set. ``position`` is that of the next frame to leave, which is
        due at ``due_s``; ``now`` is the present, both in seconds of the session's clock. Frames
        that cannot be shown in time any more are left out.
        """
        assert speech.begins is not None
        waiting = speech.waiting
        while waiting:  # what has passed meanwhile
            at = speech.begins + waiting[0][0]
            if at >= position and not self._too_late(
                speech, self._due_at(at - position, due_s), now
            ):
                break
            waiting.popleft()
        if not waiting or speech.begins + waiting[0][0] >= position + _AHEAD_FRAMES:
            return None
        first = waiting[0][0]
        at = speech.begins + first
        latest_s = self._due_at(at - position, due_s)
        most = _WORK_FRAMES
        if latest_s is not None:
            # All of them come together, so they have to be there when the first one is due.
            spare_s = latest_s - now - _COMPOSE_S
            most = max(1, min(most, int(spare_s / max(1e-6, self._frame_s * _MARGIN))))
            if speech.stalled or not speech.begun:
                latest_s += MOST_WAITED_FRAMES * FRAME_MS / 1000
        windows: list[AudioWindows] = []
        while waiting and len(windows) < most and waiting[0][0] == first + len(windows):
            number, window = waiting.popleft()
            windows.append(window)
            speech.made[number] = Made()
        return Work(speech, first, at, np.concatenate(windows), latest_s, now)

    @property
    def _takes_s(self) -> float:
        varies_s = min(_DEVIATIONS * self._deviation_s, _MOST_DEVIATION_S)
        margin_s = max((_MARGIN - 1) * self._alone_s, varies_s)
        return self._alone_s + margin_s + _COMPOSE_S

    def _may_correct(self, due_s: float) -> bool:
        """Whether the last correction is long enough ago."""
        return due_s >= self._corrected_s + _CORRECTED_EVERY_FRAMES * FRAME_MS / 1000

    def _ready_s(self, speech: Speech, number: int) -> float:
        """When frame ``number`` of speech that comes while it is spoken can be shown, as far as can
        be told."""
        takes_s = min(self._takes_s, _MOST_PROCESSING_S)
        return speech.arrival.due_s(number * FRAME_MS / 1000 + speech.ahead_s) + takes_s

    def _due_at(self, frames: int, due_s: float) -> float | None:
        """When the frame is due that is so many ``frames`` after the next; None where frames are
        waited for."""
        return due_s + frames * FRAME_MS / 1000 if self._settings.paced else None

    def _too_late(self, speech: Speech, due_s: float | None, now: float) -> bool:
        """Whether a mouth asked for now would not be there in time; never where it is waited
        for."""
        if due_s is None or speech.stalled or not speech.begun:
            return False
        return now + min(self._alone_s * _MARGIN, _MOST_PROCESSING_S) > due_s
