"""Who makes a session, who waits, and who does not."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lipwire.engine.cpu.sessionpool import SessionPool


class Session:
    """What is shared."""


def test_a_slow_graph_does_not_hold_up_another() -> None:
    pool = SessionPool[Session]()
    started, go_on = threading.Event(), threading.Event()

    def slow() -> Session:
        started.set()
        assert go_on.wait(60)
        return Session()

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(pool.get, "slow", slow)
        assert started.wait(60)
        assert pool.get("quick", Session) is not None
        assert not waiting.done()
        go_on.set()
        assert waiting.result(60) is not None


def test_a_failure_is_not_kept() -> None:
    pool = SessionPool[Session]()

    def fail() -> Session:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        pool.get("graph", fail)
    made = pool.get("graph", Session)
    assert pool.get("graph", fail) is made
    assert len(pool) == 1
