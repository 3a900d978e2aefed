"""What a live session tells in plain words, and the figures about it."""

import numpy as np
import pytest

from lipwire.cli.live.figures import Figures, told
from lipwire.rpc.received import Ended, Received, Refused
from lipwire.session.live import (
    FramesDropped,
    GoingAway,
    LiveFrame,
    Sound,
    SpeechBegan,
    SpeechEnded,
    State,
    StateChanged,
)

SILENCE = np.zeros(0, np.float32)


@pytest.mark.parametrize(
    ("received", "text"),
    [
        (StateChanged(1480, State.SPEAKING, 1), "    1.48 s speaking"),
        (SpeechBegan(40, 2), "    0.04 s speech 2 begins"),
        (SpeechEnded(80, 2, 1250, False, 0), "    0.08 s speech 2 ends, 1.25 s spoken"),
        (
            SpeechEnded(80, 2, 1250, True, 500),
            "    0.08 s speech 2 ends, 1.25 s spoken, interrupted with 0.50 s left",
        ),
        (
            FramesDropped(0, 1, "late"),
            "    0.00 s 1 frame dropped (late): their mouths were not made in time",
        ),
        (FramesDropped(0, 3, "new"), "    0.00 s 3 frames dropped (new): new"),
        (
            GoingAway(0, "it stops", 30.0),
            "    0.00 s the server ends the session in 30 s: it stops",
        ),
        (Refused("NOT_FOUND", "no such avatar"), "           refused: NOT_FOUND: no such avatar"),
        (Ended("max_idle"), "           the session has ended: max_idle"),
        (Sound(3, SILENCE, 0), ""),
        (LiveFrame(3, b"", 1, 1, 3, 0), ""),
    ],
)
def test_events_are_one_line_each(received: Received, text: str) -> None:
    assert told(received) == text


def test_frames_and_sound_are_counted_on_the_sessions_clock() -> None:
    figures = Figures(100.0)
    for frame, late_s in ((0, 0.0), (1, 0.0), (3, 0.030)):
        for number in (2, 3) if frame == 3 else (frame,):
            figures.take(Sound(number, SILENCE, 0), 100.2 + number * 0.04)
        figures.take(LiveFrame(frame, b"", 1, 1, frame, frame), 100.2 + frame * 0.04 + late_s)
    figures.take(Sound(5, SILENCE, 0), 100.4)
    assert (figures.shown, figures.dropped, figures.holes) == (3, 1, 1)
    assert dict(figures.rows(100.1)) == {
        "session asked for to first frame": "200 ms",
        "first audio sent to first frame of speech": "140 ms",
        "frames behind the session's clock, median / p99": "0.0 / 30.0 ms",
        "frames shown": "3",
        "frames dropped": "1",
        "sound": "0.20 s, with 1 gaps",
    }


def test_a_session_in_which_nothing_came_has_figures() -> None:
    assert dict(Figures(0.0).rows(None)) == {
        "frames shown": "0",
        "frames dropped": "0",
        "sound": "0.00 s, without a gap",
    }
