from collections.abc import Iterator
from typing import Any

import pytest
from tests.scheduling.schedules import Make, Network
from tests.support.waiting import Clock

from lipwire.scheduling import Scheduler


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def network(clock: Clock) -> Network:
    return Network(clock)


@pytest.fixture
def make(network: Network, clock: Clock) -> Iterator[Make]:
    """``make(**settings) -> Scheduler``, closed at the end."""
    made: list[Scheduler[str]] = []

    def make_one(**settings: Any) -> Scheduler[str]:
        chosen = {"workers": 1, "queue_size": 10, "clock": clock, "join": True, **settings}
        made.append(Scheduler(network, **chosen))
        return made[-1]

    yield make_one
    network.go_on_freely()
    for each in made:
        each.close()
