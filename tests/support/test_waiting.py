import threading
from concurrent.futures import Future

import pytest
from tests.support.waiting import Clock, until


def test_it_returns_when_the_condition_holds() -> None:
    turns = iter([False, 0, [], "yes"])
    until(lambda: next(turns))
    assert list(turns) == []


def test_who_gives_up_says_what_was_seen_and_where_threads_are() -> None:
    leave = threading.Event()
    stuck = threading.Thread(target=leave.wait, name="stuck in here")
    stuck.start()
    try:
        with pytest.raises(
            AssertionError, match=r"not so within 0 s; 3 of 5\n(.|\n)*stuck in here"
        ):
            until(lambda: False, timeout_s=0, seen=lambda: "3 of 5")
    finally:
        leave.set()
        stuck.join()


def test_a_future_that_fails_ends_the_waiting() -> None:
    good: Future[int] = Future()
    good.set_result(1)
    bad: Future[int] = Future()
    bad.set_exception(KeyError("lost"))
    with pytest.raises(KeyError, match="lost"):
        until(lambda: False, futures=[good, bad])


def test_time_stands_still_until_it_is_moved() -> None:
    clock = Clock()
    before = clock()
    clock.now += 5
    assert clock() - before == 5
