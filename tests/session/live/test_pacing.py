import threading
from collections.abc import Callable

import pytest
from tests.support.waiting import Clock, until

from lipwire.session.live import Pacer


class Member:
    """Is due every ``every_s``; says when it was called in ``calls``."""

    def __init__(self, name: str, calls: list[tuple[str, float]], every_s: float | None) -> None:
        self.name = name
        self._calls = calls
        self._every_s = every_s
        self.does: Callable[[], object] = lambda: None
        self.due_s = 0.0

    def on_due(self, now: float) -> float | None:
        self._calls.append((self.name, now))
        self.does()
        if self._every_s is None:
            return None
        self.due_s += self._every_s
        return self.due_s


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = 0.0
    return clock


@pytest.fixture
def calls() -> list[tuple[str, float]]:
    return []


def test_members_are_called_in_the_order_of_their_times(
    clock: Clock, calls: list[tuple[str, float]]
) -> None:
    pacer = Pacer(clock=clock, start=False)
    pacer.add(Member("a", calls, None), 3.0)
    pacer.add(Member("b", calls, None), 1.0)
    pacer.add(Member("c", calls, None), 1.0)
    assert pacer.next_due_s() == 1
    pacer.run_due()
    assert not calls
    clock.now = 2.0
    pacer.run_due()
    assert [name for name, _ in calls] == ["b", "c"]
    clock.now = 4.0
    pacer.run_due()
    assert [name for name, _ in calls] == ["b", "c", "a"]
    assert len(pacer) == 0
    assert pacer.next_due_s() is None


def test_a_member_is_called_again_when_it_says(
    clock: Clock, calls: list[tuple[str, float]]
) -> None:
    pacer = Pacer(clock=clock, start=False)
    pacer.add(Member("a", calls, 0.25), 0.0)
    for _ in range(5):
        pacer.run_due()
        clock.now += 0.125
    assert calls == [("a", 0.0), ("a", 0.25), ("a", 0.5)]


def test_it_says_how_late_members_were_called(clock: Clock, calls: list[tuple[str, float]]) -> None:
    pacer = Pacer(clock=clock, start=False)
    assert pacer.lateness_s(50) is None
    for due_s in (0.0, 0.25, 0.5):
        pacer.add(Member("a", calls, None), due_s)
    clock.now = 1.0
    pacer.run_due()
    assert pacer.lateness_s(0) == 0.5
    assert pacer.lateness_s(100) == 1.0


def test_a_member_that_fails_is_called_no_more_and_stops_no_other(
    clock: Clock, calls: list[tuple[str, float]]
) -> None:
    pacer = Pacer(clock=clock, start=False)
    failing, other = Member("a", calls, 1.0), Member("b", calls, 1.0)
    failing.does = lambda: 1 / 0
    pacer.add(failing, 0.0)
    pacer.add(other, 0.0)
    for _ in range(3):
        pacer.run_due()
        clock.now += 1.0
    assert [name for name, _ in calls] == ["a", "b", "b", "b"]
    assert len(pacer) == 1


@pytest.mark.parametrize("late", [False, True])
def test_a_member_that_is_removed_is_called_no_more(
    clock: Clock, calls: list[tuple[str, float]], late: bool
) -> None:
    pacer = Pacer(clock=clock, start=False)
    member = Member("a", calls, 1.0)
    pacer.add(member, 0.0)
    if late:  # while it is called
        member.does = lambda: pacer.remove(member)
        pacer.run_due()
    else:
        pacer.remove(member)
    clock.now = 5.0
    pacer.run_due()
    assert len(calls) == late
    assert len(pacer) == 0


def test_a_member_that_comes_back_is_called_once_each_time(
    clock: Clock, calls: list[tuple[str, float]]
) -> None:
    pacer = Pacer(clock=clock, start=False)
    member = Member("a", calls, 1.0)
    pacer.add(member, 0.0)
    pacer.remove(member)
    pacer.add(member, 0.0)
    pacer.run_due()
    assert calls == [("a", 0.0)]


def test_its_thread_calls_members_and_ends_with_it(
    calls: list[tuple[str, float]], own_threads: Callable[[], list[str]]
) -> None:
    clock = Clock()
    with Pacer(clock=clock) as pacer:
        first, second = Member("a", calls, None), Member("b", calls, None)
        pacer.add(first, clock.now)
        until(lambda: [name for name, _ in calls] == ["a"])
        pacer.add(second, clock.now)
        until(lambda: [name for name, _ in calls] == ["a", "b"])
        assert own_threads() == ["lipwire-pacing"]
    assert own_threads() == []
    pacer.add(first, clock.now)
    assert len(pacer) == 0


def test_closing_waits_for_the_member_that_is_being_called(
    calls: list[tuple[str, float]],
) -> None:
    clock = Clock()
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    member = Member("a", calls, 1.0)

    def does() -> None:
        begun.set()
        go_on.wait()
        done.set()

    member.does = does
    pacer = Pacer(clock=clock)
    pacer.add(member, clock.now)
    begun.wait()
    closing = threading.Thread(target=pacer.close)
    closing.start()
    assert closing.is_alive()
    go_on.set()
    closing.join()
    assert done.is_set()
