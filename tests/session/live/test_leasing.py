import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.support.liveparts import LiveTime
from tests.support.waiting import WAIT_S

from lipwire.domain import Call, Overloaded
from lipwire.session.live import LiveThreads
from lipwire.session.live.leasing import SessionLeases


class OneLease:
    """Room for one session, whose lease ends when ``may_end`` is set."""

    def __init__(self) -> None:
        self.holder = ""
        self.may_end = threading.Event()

    def acquire(self, holder: str, model_id: str, call: Call) -> None:
        if self.holder not in ("", holder):
            raise Overloaded("1 live session runs; 1 fits")
        self.holder = holder

    def release(self, holder: str) -> None:
        assert self.may_end.wait(WAIT_S)
        self.holder = ""


@pytest.fixture
def threads() -> Iterator[LiveThreads]:
    pacer = LiveTime().threads.pacer
    with ThreadPoolExecutor(2) as workers:
        yield LiveThreads(pacer, workers, workers)


def test_leases_that_are_ending_can_be_waited_for(threads: LiveThreads) -> None:
    one = OneLease()
    leases = SessionLeases(one, threads)
    call = Call(60.0)
    leases.acquire("first", "anna", call)
    leases.settle(60.0)  # nothing ends, and nothing is waited for
    leases.release_later("first")
    leases.settle(0.0)
    with pytest.raises(Overloaded):
        leases.acquire("second", "anna", call)
    threading.Timer(0.05, one.may_end.set).start()
    leases.settle(WAIT_S)
    leases.acquire("second", "anna", call)


def test_without_limits_nothing_is_reserved(threads: LiveThreads) -> None:
    leases = SessionLeases(None, threads)
    assert not leases.limited
    leases.acquire("first", "anna", Call(60.0))
    leases.release("first")
    leases.release_later("first")
    leases.settle(60.0)
