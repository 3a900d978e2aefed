"""What is told of a live session as it happens."""

import pytest

from lipwire.domain.tracing import Trace, traced
from lipwire.session.live import observer
from lipwire.session.live.dropped import DroppedFrames, Reason
from lipwire.session.live.events import SpeechBegan, SpeechEnded
from lipwire.session.live.observer import Observed, SessionObserver


class Heard(SessionObserver):
    def __init__(self) -> None:
        self.first: list[float] = []
        self.left: list[float] = []
        self.worked: list[float] = []
        self.out: list[tuple[Reason, int]] = []

    def first_frame(self, seconds: float) -> None:
        self.first.append(seconds)

    def picture_left(self, seconds: float) -> None:
        self.left.append(seconds)

    def composed(self, processor_s: float) -> None:
        self.worked.append(processor_s)

    def left_out(self, reason: Reason, count: int) -> None:
        self.out.append((reason, count))


def test_the_first_picture_is_told_from_when_it_was_asked_for_and_the_others_from_their_sound() -> (
    None
):
    heard, now = Heard(), [100.0]
    observed = Observed(heard, lambda: now[0])
    now[0] = 100.5
    observed.ticked(now[0], (), DroppedFrames())
    with observed.showing(paced=True):
        now[0] = 100.75
    for late_s in (0.0, 0.25):
        observed.ticked(now[0], (), DroppedFrames())
        with observed.showing(paced=True):
            now[0] += late_s
    assert heard.first == [0.75]
    assert heard.left == [0.0, 0.25]


def test_pictures_that_leave_when_they_are_made_are_not_late() -> None:
    heard, now = Heard(), [0.0]
    observed = Observed(heard, lambda: now[0], asked_s=-2.0)
    for _ in range(3):
        observed.ticked(now[0], (), DroppedFrames())
        with observed.showing(paced=False):
            now[0] += 5.0
    assert heard.first == [7.0]
    assert heard.left == []


def test_the_work_of_composing_each_picture_is_told() -> None:
    heard, worked = Heard(), [0.0]
    observed = Observed(heard, lambda: 0.0, processor_clock=lambda: worked[0])
    for seconds in (0.5, 0.0, 0.25):
        worked[0] += 1.0  # for something else
        with observed.showing(paced=True):
            worked[0] += seconds
    with pytest.raises(OSError, match="a disk is full"), observed.showing(paced=True):
        raise OSError("a disk is full")
    for seconds in (2.0, 1.0):
        with observed.working():
            worked[0] += seconds
    for _ in range(2):
        with observed.showing(paced=True):
            worked[0] += 0.125
    assert heard.worked == [0.5, 0.0, 0.25, 3.125, 0.125]


def test_frames_left_out_are_told_once_by_their_reason() -> None:
    heard, dropped = Heard(), DroppedFrames()
    observed = Observed(heard, lambda: 0.0)
    observed.ticked(0.0, (), dropped)
    dropped.add("late")
    dropped.add("late")
    dropped.add("pacing")
    observed.ticked(0.0, (), dropped)
    observed.ticked(0.0, (), dropped)
    dropped.add("late")
    observed.ticked(0.0, (), dropped)
    assert sorted(heard.out) == [("late", 1), ("late", 2), ("pacing", 1)]


def test_each_piece_of_speech_is_a_span_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[str, str, float, dict[str, object]]] = []

    def passed(name: str, trace: Trace | None, seconds: float, **attributes: object) -> None:
        assert trace is not None
        spans.append((name, trace.request_id, seconds, attributes))

    monkeypatch.setattr(observer, "span_passed", passed)
    dropped = DroppedFrames()
    with traced(Trace("mine-1", "0" * 32)):
        observed = Observed(Heard(), lambda: 0.0)
    observed.ticked(0.0, [SpeechBegan(1000, 1)], dropped)
    dropped.add("late")
    observed.ticked(0.0, (), dropped)
    observed.ticked(0.0, [SpeechEnded(1800, 1, 780, False, 0), SpeechBegan(1800, 2)], dropped)
    observed.told([SpeechEnded(2000, 2, 200, True, 500)])  # the session's end
    observed.told([SpeechEnded(2000, 3, 0, True, 500)])  # nothing of it was heard
    assert spans == [
        ("speech", "mine-1", 0.8, {"spoken_ms": 780, "interrupted": False, "left_out": 1}),
        ("speech", "mine-1", 0.2, {"spoken_ms": 200, "interrupted": True, "left_out": 1}),
    ]
