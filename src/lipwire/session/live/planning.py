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
"""A mouth may take so many times its measured time before it counts as late."""
_LEAST_MARGIN: Final = 0.15
_DEVIATIONS: Final = 2.0
_MOST_DEVIATION_S: Final = 2 * FRAME_MS / 1000
_COMPOSE_S: Final = 0.005
"""What is planned for: the measured time of a mouth, such a part of it or so many times its mean
deviation (so much at most), whichever is longer, and so long for composing it."""
_MOST_PROCESSING_S: Final = _AHEAD_FRAMES * 0.75 * FRAME_MS / 1000
"""A mouth is tried for where there is so much time left, however long others have taken."""
_TRIED_EVERY_S: Final = 0.5
"""A mouth is tried for this often, however late it would be: a network that has become fast again
is found by that alone."""
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
_MOST_DELAYED_FRAMES: Final = 4
"""By so many frames it is delayed for that, at most: where a network makes too few mouths, no delay
is enough."""
MOST_WAITED_FRAMES: Final = 25
"""How long the first mouth of a piece of speech is waited for before it is spoken without."""


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Consecutive frames of one piece of speech whose mouths are to be made now. ``first`` is the
    number of the first of them in ``speech``, from 0, and ``position`` the avatar's frame onto
    which that frame's mouth is pasted. ``windows`` are what the network hears of them, (n, 32, 16,
    16) float32. ``due_s`` is when the first has to be ready (None where frames wait for their
    mouths), and ``asked_s`` when they were asked for; both in seconds of the session's clock.
    ``tried`` says that they are asked for although, by what is known, they will be too late."""

    speech: Speech
    first: int
    position: int
    windows: AudioWindows
    due_s: float | None
    asked_s: float
    tried: bool


class Planning:
    """Plans when the speech of one session is shown and which mouths are made next, by how long its
    mouths have taken so far. Not thread-safe: its owner calls it under the session's lock.

    The owner reports what has happened (``took``, ``spoke``, ``corrected``), and does what the
    other methods say. In them ``position`` is the avatar's frame that the next frame to leave
    shows, and ``due_s`` when that frame is due, in seconds of the session's clock.
    """

    def __init__(self, settings: SessionSettings, mouth_s: float | None = None) -> None:
        """``mouth_s`` is how many seconds a mouth took in an earlier session of the avatar; None
        where there was none."""
        self._settings: Final = settings
        self._frame_s = _FIRST_PROCESSING_S if mouth_s is None else mouth_s
        """Time for each mouth of those that are asked for together."""
        self._alone_s = self._frame_s
        """Time of a mouth that is asked for alone."""
        self._deviation_s = 0.0
        self._measured = mouth_s is not None
        self._asked_s = -math.inf
        """When mouths were last asked for."""
        self._corrected_s = -math.inf
        self._late: deque[bool] = deque(maxlen=_LATE_OF)
        """Which of the latest frames had no mouth in time."""
        self._delayed = 0

    def took(self, seconds: float, frames: int, *, tried: bool = False) -> float:
        """Note that ``frames`` mouths that were asked for together took ``seconds`` from being
        asked for until they were made; a running mean of these times is what later mouths are
        expected to take. Returns how many seconds a mouth that is asked for alone takes, by what is
        known now. With ``tried``, the mouths were asked for although they would be too late
        (``Work.tried``), and this measurement replaces the mean."""
        frame_s = seconds / frames
        known = self._measured and not tried
        weight = _WEIGHT if known else 1.0
        self._measured = True
        self._frame_s += weight * (frame_s - self._frame_s)
        # Of several, some may have been made side by side: one alone takes as long as they at most,
        # and as long as a part of them at least.
        alone_s = min(max(self._alone_s, frame_s), seconds)
        difference_s = alone_s - self._alone_s
        self._alone_s += weight * difference_s
        if known:
            self._deviation_s += _WEIGHT * (abs(difference_s) - self._deviation_s)
        return self._alone_s

    def spoke(self, *, late: bool) -> None:
        """Note that a frame of speech was due; ``late`` says that its mouth was not made in time.
        Where more than 2 of the latest 8 were late, ``wants_delay`` may return True."""
        self._late.append(late)

    @property
    def most_in_hand(self) -> int:
        """How many requests for mouths may be under way at once, 1 or 2: 2 only where a mouth takes
        about the time of a frame or longer, so that they have to overlap to be in time."""
        frames = self._alone_s * _MARGIN * 1000 / FRAME_MS
        return min(max(1, math.ceil(frames)), _MOST_IN_HAND)

    def begins_s(self, speech: Speech, now: float) -> float:
        """Return when the first frame of ``speech`` can be shown so that its mouth and the
        following ones are made in time, in seconds of the session's clock. ``now`` is the present
        on that clock. To be called when what the network hears of the first frames of ``speech`` is
        known, and their mouths are not made yet."""
        ready_s = now + self._takes_s
        if self.is_live(speech):
            jitter_s = speech.arrival.jitter_s * _JITTER_MARGIN
            ready_s = max(ready_s, self.ready_s(speech, 0) + jitter_s)
        return ready_s

    def is_live(self, speech: Speech) -> bool:
        """Return whether the audio of ``speech`` arrives about as fast as it is spoken, as from a
        microphone, and its end has not come yet."""
        return speech.arrival.is_live and not speech.ended

    def ready_s(self, speech: Speech, number: int) -> float:
        """Return when frame ``number`` (from 0) of ``speech`` can probably be shown, in seconds of
        the session's clock: when its audio will have come and its mouth will have been made. For
        speech whose audio arrives about as fast as it is spoken (``is_live``)."""
        takes_s = min(self._takes_s, _MOST_PROCESSING_S)
        return speech.arrival.due_s(number * FRAME_MS / 1000 + speech.ahead_s) + takes_s

    def wants_delay(self, speech: Speech, due_s: float) -> bool:
        """Return whether ``speech`` should be shown a frame later from the next frame on, which is
        due at ``due_s``, because more than 2 of the latest 8 frames of speech had no mouth in time.
        False where ``is_live`` is false for it, where speech is delayed by four frames already, and
        within five frames of the last correction. Call ``corrected`` where it is delayed."""
        if not self.is_live(speech) or not self._may_correct(due_s):
            return False
        return sum(self._late) > _MOST_LATE and self._delayed < _MOST_DELAYED_FRAMES

    def correction(self, speech: Speech, number: int, due_s: float) -> int:
        """Return by how many frames ``speech`` should be shown later from its frame ``number``
        (from 0) on, which is the next to leave and due at ``due_s``: 1, 0 or -1 (earlier). It is 0
        where ``is_live`` is false for ``speech``, and within five frames of the last correction.
        Call ``corrected`` where the speech is moved. Corrections are needed because a microphone's
        clock differs from the session's, and because jitter changes."""
        if not self.is_live(speech) or not self._may_correct(due_s):
            return 0
        arrival = speech.arrival
        spare_s = due_s - self.ready_s(speech, number)
        correction = 0
        if spare_s < 0:
            correction = 1
        elif arrival.is_live_for_long and spare_s - arrival.jitter_s * _JITTER_MARGIN > _EXCESS_S:
            correction = -1
        return correction

    def corrected(self, correction: int, due_s: float) -> None:
        """Note that speech is shown a frame later (``correction`` 1) or earlier (-1) from the frame
        on that is due at ``due_s``. For five frames, ``correction`` and ``wants_delay`` then ask
        for no other change."""
        self._corrected_s = due_s
        self._delayed = max(0, self._delayed + correction)
        self._late.clear()

    def work_of(self, speech: Speech, position: int, now: float, due_s: float) -> Work | None:
        """Return the frames of ``speech`` whose mouths are to be made now, up to 4; None where
        there are none. They are taken from ``speech.waiting``, the frames whose mouths were not
        asked for yet, and noted in ``speech.made``. Frames that cannot be shown in time any more
        are left out.

        ``speech.begins``, the position of its first frame, has to be set before. ``position`` is
        the avatar's frame that the next frame to leave shows, and ``due_s`` when that is due;
        ``now`` is the present. Times are in seconds of the session's clock.
        """
        assert speech.begins is not None
        waiting = speech.waiting
        may_try = now >= self._asked_s + _TRIED_EVERY_S
        while waiting:  # what has passed meanwhile
            at = speech.begins + waiting[0][0]
            latest_s = self._due_at(at - position, due_s)
            if at >= position and (may_try or not self._too_late(speech, latest_s, now)):
                break
            waiting.popleft()
        if not waiting or speech.begins + waiting[0][0] >= position + _AHEAD_FRAMES:
            return None
        first = waiting[0][0]
        at = speech.begins + first
        latest_s = self._due_at(at - position, due_s)
        tried = self._too_late(speech, latest_s, now)
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
        self._asked_s = now
        return Work(speech, first, at, np.concatenate(windows), latest_s, now, tried)

    @property
    def _takes_s(self) -> float:
        varies_s = min(_DEVIATIONS * self._deviation_s, _MOST_DEVIATION_S)
        margin_s = max(_LEAST_MARGIN * self._alone_s, varies_s)
        return self._alone_s + margin_s + _COMPOSE_S

    def _may_correct(self, due_s: float) -> bool:
        """Whether the last correction is long enough ago."""
        return due_s >= self._corrected_s + _CORRECTED_EVERY_FRAMES * FRAME_MS / 1000

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
