"""Work and waiting have times of their own."""

from tests.support.waiting import Clock

from lipwire.avatars.sandbox.timelimit import TimeLimit


def test_work_and_waiting_are_measured_apart() -> None:
    clock = Clock()
    limit = TimeLimit(10, clock)
    clock.now += 4
    assert (limit.left_s, limit.waiting) == (6, False)
    limit.waits()
    clock.now += 9
    assert (limit.left_s, limit.waiting) == (1, True)
    limit.works()
    assert limit.left_s == 6
    clock.now += 5
    assert limit.left_s == 1


def test_waiting_again_gives_no_more_time() -> None:
    clock = Clock()
    limit = TimeLimit(10, clock)
    for _ in range(4):
        limit.waits()
        clock.now += 3
        limit.works()
    assert limit.left_s == 10
    limit.waits()
    assert limit.left_s == 0
