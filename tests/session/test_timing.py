import threading

import pytest
from tests.support.waiting import WAIT_S, Clock

from lipwire.session import Stopwatch


def test_times_of_a_stage_add_up_over_threads() -> None:
    clock, cpu_clock = Clock(), Clock()
    watch = Stopwatch(clock, cpu_clock)
    both = threading.Barrier(3, timeout=WAIT_S)

    def encode() -> None:
        with watch.measure("encode"):
            both.wait()
            both.wait()

    threads = [threading.Thread(target=encode) for _ in range(2)]
    for thread in threads:
        thread.start()
    both.wait()
    clock.now += 0.05
    cpu_clock.now += 0.02
    both.wait()
    for thread in threads:
        thread.join()
    spent = watch.times()["encode"]
    assert spent.wall_ms == pytest.approx(100)
    assert spent.cpu_ms == pytest.approx(40)


def test_processor_time_is_that_of_the_thread_alone() -> None:
    watch = Stopwatch()
    with watch.measure("audio"):
        working = threading.Thread(target=sum, args=(range(2_000_000),))
        working.start()
        working.join()
    spent = watch.times()["audio"]
    assert spent.cpu_ms < spent.wall_ms


def test_a_stage_that_fails_is_counted() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.measure("compose"):
        raise KeyError
    assert watch.times()["compose"].wall_ms > 0
