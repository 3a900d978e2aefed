import logging
import threading

import pytest
from tests.support.waiting import WAIT_S

from lipwire.wiring.periodic import every


def test_work_is_done_again_and_again_whatever_it_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns, enough = 0, threading.Event()

    def work() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise ValueError("once")
        if turns == 3:
            enough.set()

    with caplog.at_level(logging.ERROR, "lipwire"), every(0.001, work, "counting"):
        assert enough.wait(WAIT_S)
    assert [record.getMessage() for record in caplog.records] == ["counting failed"]


def test_the_thread_ends_with_the_block_and_does_not_wait_for_the_next_turn() -> None:
    with every(10 * WAIT_S, lambda: None, "waiting"):
        (thread,) = (each for each in threading.enumerate() if each.name == "lipwire-waiting")
    assert not thread.is_alive()
