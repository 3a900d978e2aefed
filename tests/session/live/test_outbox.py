import threading

import numpy as np
from tests.support.waiting import until

from lipwire.session.live import FramesDropped, Item, LiveFrame, Outbox, Sound

SILENCE = np.zeros(640, np.float32)


def picture(frame: int) -> LiveFrame:
    return LiveFrame(frame, b"", 4, 4, frame, 0)


def sound(frame: int) -> Sound:
    return Sound(frame, SILENCE, 0)


def test_items_come_out_as_they_went_in() -> None:
    outbox = Outbox()
    items: list[Item] = [sound(0), picture(0), FramesDropped(0, 1, "late"), sound(1)]
    outbox.put(*items[:2])
    outbox.put(*items[2:])
    assert outbox.take() == items
    assert outbox.take(0.0) == []


def test_there_is_room_for_five_pictures() -> None:
    outbox = Outbox()
    for frame in range(5):
        assert outbox.has_room
        outbox.put(picture(frame))
    assert not outbox.has_room
    assert not outbox.wait_for_room(0.0)
    outbox.take()
    assert outbox.wait_for_room()


def test_of_sound_that_nobody_takes_the_newest_two_seconds_stay() -> None:
    outbox = Outbox()
    for frame in range(200):
        outbox.put(sound(frame))
        if outbox.has_room:
            outbox.put(picture(frame))
    taken = outbox.take() or []
    sounds = [item.frame for item in taken if isinstance(item, Sound)]
    pictures = [item.frame for item in taken if isinstance(item, LiveFrame)]
    assert sounds == list(range(150, 200))
    assert outbox.lost_sounds == 150
    assert len(pictures) <= 5
    assert all(frame >= 149 for frame in pictures)


def test_much_sound_at_once_is_bounded_too() -> None:
    outbox = Outbox()
    outbox.put(*(sound(frame) for frame in range(500)))
    assert [item.frame for item in outbox.take() or [] if isinstance(item, Sound)] == list(
        range(450, 500)
    )


def test_events_that_nobody_takes_are_bounded() -> None:
    outbox = Outbox()
    for at_ms in range(5_000):
        outbox.put(FramesDropped(at_ms, 1, "late"))
    taken = outbox.take() or []
    assert len(taken) < 1_100
    assert taken[-1] == FramesDropped(4_999, 1, "late")


def test_a_closed_outbox_gives_what_it_has_and_takes_nothing() -> None:
    outbox = Outbox()
    outbox.put(sound(0))
    outbox.close()
    outbox.put(sound(1))
    assert outbox.take() == [sound(0)]
    assert outbox.take() is None
    assert not outbox.wait_for_room()


def test_dropping_what_waits_makes_room() -> None:
    outbox = Outbox()
    outbox.put(*(picture(frame) for frame in range(5)), sound(0))
    outbox.clear()
    assert outbox.has_room
    assert outbox.take(0.0) == []


def test_who_waits_for_items_is_woken_by_one_and_by_the_end() -> None:
    outbox = Outbox()
    taken: list[list[Item] | None] = []

    def take() -> None:
        while (items := outbox.take()) is not None:
            taken.append(items)
        taken.append(None)

    thread = threading.Thread(target=take)
    thread.start()
    outbox.put(sound(0))
    until(lambda: taken == [[sound(0)]])
    outbox.close()
    thread.join()
    assert taken == [[sound(0)], None]


def test_who_waits_for_room_is_woken_by_the_end() -> None:
    outbox = Outbox()
    outbox.put(*(picture(frame) for frame in range(5)))
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(outbox.wait_for_room()))
    thread.start()
    outbox.close()
    thread.join()
    assert found == [False]
