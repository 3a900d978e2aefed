"""What a scheduler tells of its requests and runs as they happen."""

import pytest
from tests.scheduling.schedules import Make, Network, frames
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import Service
from lipwire.scheduling import Observer


class Heard(Observer):
    def __init__(self) -> None:
        self.waits: list[tuple[Service, float]] = []
        self.runs: list[tuple[int, float]] = []

    def waited(self, service: Service, seconds: float) -> None:
        self.waits.append((service, seconds))

    def ran(self, frames: int, seconds: float) -> None:
        self.runs.append((frames, seconds))


def test_waits_and_runs_are_told(make: Make, network: Network, clock: Clock) -> None:
    heard = Heard()
    network.frame_s = 0.5
    scheduler = make(max_run_frames=4, observer=heard)
    first = scheduler.submit("a", *frames(6))
    until(lambda: network.runs)
    second = scheduler.submit("a", *frames(1), service="live")
    network.go_on_freely()
    for job in (first, second):
        job.result(WAIT_S)
    assert heard.waits == [("batch", 0.0), ("live", pytest.approx(2.0))]
    assert sum(count for count, _ in heard.runs) == 7
    assert all(seconds == pytest.approx(0.5 * count) for count, seconds in heard.runs)
    stats = scheduler.stats()
    assert (stats.runs, stats.frames) == (len(heard.runs), 7)
