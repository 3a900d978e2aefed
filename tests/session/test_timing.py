import threading
import time

import pytest

from lipwire.session import Stopwatch


def test_times_of_a_stage_add_up_over_threads() -> None:
    watch = Stopwatch()

    def rest() -> None:
        with watch.measure("encode"):
            time.sleep(0.05)

    threads = [threading.Thread(target=rest) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = watch.times()["encode"]
    assert spent.wall_ms >= 150
    assert spent.cpu_ms < 50  # they slept


def test_a_stage_that_fails_is_counted() -> None:
    watch = Stopwatch()
    with pytest.raises(KeyError), watch.measure("compose"):
        raise KeyError
    assert watch.times()["compose"].wall_ms > 0
