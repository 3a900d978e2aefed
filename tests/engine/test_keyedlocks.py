"""Who waits for whom."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lipwire.engine.keyedlocks import KeyedLocks

WAIT_S = 60.0


def test_only_threads_with_the_same_key_wait() -> None:
    locks = KeyedLocks()
    entered: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with locks.held("a"):
            entered.append("first")
            inside.set()
            assert go_on.wait(WAIT_S)

    def second() -> None:
        with locks.held("a"):
            entered.append("second")

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first)
        assert inside.wait(WAIT_S)
        other = threads.submit(second)
        with locks.held("b"):
            entered.append("another key")
        assert not one.done()
        assert not other.done()
        go_on.set()
        one.result(WAIT_S)
        other.result(WAIT_S)
    assert entered == ["first", "another key", "second"]


def test_a_key_is_free_again_after_an_error() -> None:
    locks = KeyedLocks()
    with pytest.raises(ValueError, match="no"), locks.held("a"):
        raise ValueError("no")
    with locks.held("a"):
        pass
    assert locks._locks == {}
