from lipwire.session.live import FramesDropped
from lipwire.session.live.dropped import DroppedFrames


def test_the_client_is_told_once_a_second() -> None:
    dropped = DroppedFrames()
    told = []
    for frame in range(100):  # four seconds
        if frame % 2:
            dropped.add("late")
        told += dropped.to_tell(frame)
    assert told == [
        FramesDropped(1000, 13, "late"),
        FramesDropped(2000, 13 - 1, "late"),
        FramesDropped(3000, 13, "late"),
    ]
    assert dropped.all_untold(100) == [FramesDropped(4000, 12, "late")]
    assert dropped.total == 50


def test_each_reason_has_an_event_and_nothing_is_told_twice() -> None:
    dropped = DroppedFrames()
    for reason in ("unread", "late", "pacing", "late"):
        dropped.add(reason)
    assert dropped.all_untold(10) == [
        FramesDropped(400, 2, "late"),
        FramesDropped(400, 1, "pacing"),
        FramesDropped(400, 1, "unread"),
    ]
    assert dropped.all_untold(10) == []
    assert dropped.to_tell(60) == []
    assert dropped.total == 4
