"""When speech is shown, and which frames' mouths are made next."""

import math
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
_FIRST_PROCESSING_S: Final = 0.03
"""How long hearing and making a frame is expected to take before it was ever measured."""
_MARGIN: Final = 1.3
_COMPOSE_S: Final = 0.005
"""What is planned for besides the measured time of a mouth: this many times of it, and this."""
_MOST_PROCESSING_S: Final = _AHEAD_FRAMES / 2 * FRAME_MS / 1000
"""A mouth is tried for where there is so much time left, however long others have taken."""
_WEIGHT: Final = 0.2
"""Of the newest measurement in the running mean."""
_JITTER_MARGIN: Final = 0.25
"""Pieces of audio are expected to come later than they have by so much of their jitter."""
_CORRECTED_EVERY_FRAMES: Final = 5
_EXCESS_S: Final = 2 * FRAME_MS / 1000
"""Speech that comes while it is spoken is shown earlier by a frame where it would still be in time
so much earlier."""
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
        self._processing_s = _FIRST_PROCESSING_S
        self._corrected_s = -math.inf

    def took(self, seconds: float) -> None:
        """A mouth took so long, from when it was asked for."""
        self._processing_s += _WEIGHT * (seconds - self._processing_s)

    def lead(self, speech: Speech, now: float, due_s: float) -> int:
        """Return how many frames it is from the next one to the first that ``speech`` can be shown
        in, where its first audio was heard at time ``now``."""
        ready_s = now + self._takes_s
        if speech.arrival.is_live and not speech.ended:
            jitter_s = speech.arrival.jitter_s * _JITTER_MARGIN
            ready_s = max(ready_s, self._ready_s(speech, 0) + jitter_s)
        return max(0, math.ceil((ready_s - due_s) * 1000 / FRAME_MS))

    def correction(self, speech: Speech, number: int, due_s: float) -> int:
        """Return by how many frames speech that comes while it is spoken should be shown later from
        frame ``number`` on, the next one: 1, 0 or -1. The clock of a microphone is another than
        that of the session, and the jitter of a network changes."""
        arrival = speech.arrival
        if speech.ended or not arrival.is_live_for_long:
            return 0
        if due_s < self._corrected_s + _CORRECTED_EVERY_FRAMES * FRAME_MS / 1000:
            return 0
        spare_s = due_s - self._ready_s(speech, number)
        correction = 0
        if spare_s < 0:
            correction = 1
        elif spare_s - arrival.jitter_s * _JITTER_MARGIN > _EXCESS_S:
            correction = -1
        return correction

    def corrected(self, due_s: float) -> None:
        """A correction was made at the frame that is due then."""
        self._corrected_s = due_s

    def work_of(self, speech: Speech, position: int, now: float, due_s: float) -> Work | None:
        """Return frames of ``speech``, which has its position, whose mouths are to be made now;
        None where there are none. Frames that cannot be shown in time any more are left out."""
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
            most = max(1, min(most, int(spare_s / max(1e-6, self._processing_s * _MARGIN))))
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
        return self._processing_s * _MARGIN + _COMPOSE_S

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
        return now + min(self._processing_s * _MARGIN, _MOST_PROCESSING_S) > due_s
