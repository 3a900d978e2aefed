"""Whether a scheduler's workers are there."""

import pytest
from tests.support.waiting import until

from lipwire.domain import Float32Array
from lipwire.scheduling import Scheduler
from lipwire.scheduling.jobs import Array


def run(key: str, faces: Array, windows: Float32Array) -> Array:
    del key, windows
    return faces


def test_it_is_alive_until_a_worker_ends_that_nobody_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = Scheduler(run, workers=2, queue_size=1)
    assert scheduler.alive
    scheduler.close()
    assert scheduler.alive  # they are gone as they should be

    work = Scheduler._work
    monkeypatch.setattr(Scheduler, "_work", lambda self, n: None if n else work(self, n))
    broken = Scheduler(run, workers=2, queue_size=1)
    until(lambda: not broken.alive)
    broken.close()
