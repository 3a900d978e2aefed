import threading
from concurrent.futures import wait

import numpy as np
import pytest
from tests.scheduling.schedules import Make, Network, busy, expected, frames
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import (
    Float32Array,
    FrameNumbers,
    InvalidInput,
    Unavailable,
)
from lipwire.scheduling.jobs import Across, Array
from lipwire.scheduling.scheduler import Scheduler


def test_small_requests_of_one_key_are_joined(make: Make, network: Network) -> None:
    scheduler = make(max_run_frames=8)
    busy(scheduler, network)
    jobs = [scheduler.submit("a", *frames(3, first)) for first in (0, 10, 20)]
    other = scheduler.submit("b", *frames(2))
    network.go_on_freely()
    for first, job in zip((0, 10, 20), jobs, strict=True):
        np.testing.assert_array_equal(job.result(WAIT_S), expected(3, first))
    np.testing.assert_array_equal(other.result(WAIT_S), expected(2))
    assert network.runs[1:] == [("a", 8), ("b", 2), ("a", 1)]
    assert scheduler.stats().joined == 3


def test_forms_and_shapes_are_not_mixed(make: Make, network: Network) -> None:
    scheduler = make()
    busy(scheduler, network)
    faces, windows = frames(2)
    pixels = scheduler.submit("a", faces, windows)
    floats = scheduler.submit("a", faces.astype(np.float32), windows, form="floats")
    network.go_on_freely()
    assert pixels.result(WAIT_S).dtype == np.uint8
    assert floats.result(WAIT_S).dtype == np.float32
    assert network.runs[1:] == [("a", 2), ("a", 2)]


def test_nothing_is_joined_unless_asked_for(network: Network, clock: Clock) -> None:
    scheduler = Scheduler(network, workers=1, queue_size=10, clock=clock)
    busy(scheduler, network)
    jobs = [scheduler.submit("a", *frames(2)) for _ in range(2)]
    network.go_on_freely()
    wait(jobs, WAIT_S)
    scheduler.close()
    assert network.runs[1:] == [("a", 2), ("a", 2)]


def test_joining_costs_nobody_a_deadline(make: Make, network: Network, clock: Clock) -> None:
    scheduler = make(max_run_frames=8)
    network.frame_s = 0.1
    network.go_on()
    scheduler.submit("a", *frames(8)).result(WAIT_S)
    network.frame_s = 0.0
    busy(scheduler, network)
    scheduler.submit("a", *frames(2), deadline=clock.now + 0.45)
    scheduler.submit("a", *frames(2))
    scheduler.submit("a", *frames(2))
    network.go_on()
    until(lambda: len(network.runs) == 3)
    assert network.runs[2] == ("a", 4), "all six frames would take 0.6 s"


def test_one_bad_request_does_not_fail_those_it_was_joined_with(
    make: Make, network: Network
) -> None:
    scheduler = make()
    busy(scheduler, network)
    faces, windows = frames(2)
    bad_windows = windows.copy()
    bad_windows[1, 1] = np.nan
    good, bad, better = (scheduler.submit("a", faces, w) for w in (windows, bad_windows, windows))
    network.go_on_freely()
    for job in (good, better):
        np.testing.assert_array_equal(job.result(WAIT_S), expected(2))
    with pytest.raises(InvalidInput, match="NaN"):
        bad.result(WAIT_S)


class Batches:
    """Runs several keys at once: as ``Network``, and remembers who was together."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.seen: list[list[tuple[str, int]]] = []

    def __call__(self, parts: list[tuple[str, Array, Float32Array]]) -> list[Array]:
        self.seen.append([(key, len(faces)) for key, faces, _ in parts])
        return [self._network(key, faces, windows) for key, faces, windows in parts]


def initial(key: str) -> str | None:
    """Keys with the same first letter are run together; those with a dash by themselves."""
    return None if key.startswith("-") else key[0]


@pytest.fixture
def batches(network: Network) -> Batches:
    return Batches(network)


def test_keys_of_a_group_are_run_together(make: Make, network: Network, batches: Batches) -> None:
    scheduler = make(across=Across(initial, batches))
    first = busy(scheduler, network)
    jobs = [
        scheduler.submit(key, *frames(count, 10 * number))
        for number, (key, count) in enumerate(
            [("a1", 1), ("b1", 1), ("a2", 2), ("-", 1), ("a1", 1)]
        )
    ]
    network.go_on_freely()
    assert first.result(WAIT_S) is not None
    for number, job in enumerate(jobs):
        assert np.array_equal(job.result(WAIT_S), expected(job.frames, 10 * number))
    assert batches.seen == [[("a1", 2), ("a2", 2)]]  # of one key together, with others of its group
    assert [key for key, _ in network.runs[1:]] == ["a1", "a2", "b1", "-"]
    stats = scheduler.stats()
    assert (stats.runs, stats.joined, stats.frames) == (4, 3, first.frames + 6)


def test_a_run_of_several_keys_has_an_end(make: Make, network: Network, batches: Batches) -> None:
    scheduler = make(across=Across(initial, batches), max_run_frames=4)
    busy(scheduler, network)
    jobs = [scheduler.submit(f"a{number}", *frames(3)) for number in range(3)]
    network.go_on_freely()
    for job in jobs:
        assert np.array_equal(job.result(WAIT_S), expected(3))
    assert batches.seen[0] == [("a0", 3), ("a1", 1)]
    assert sum(count for batch in batches.seen for _, count in batch) <= 9


def test_a_key_with_much_does_not_push_others_out_of_a_batch(
    make: Make, network: Network, batches: Batches
) -> None:
    scheduler = make(across=Across(initial, batches), max_run_frames=8, queue_size=50)
    busy(scheduler, network)
    for _ in range(10):
        scheduler.submit("a-much", *frames(6))
    little = scheduler.submit("a-little", *frames(2))
    network.go_on_freely()
    assert np.array_equal(little.result(WAIT_S), expected(2))
    assert [key for key, _ in network.runs[1:3]] == ["a-much", "a-little"]
    assert batches.seen[0] == [("a-little", 2), ("a-much", 6)]


def test_floats_of_several_keys_are_not_run_together(
    make: Make, network: Network, batches: Batches
) -> None:
    scheduler = make(across=Across(initial, batches))
    busy(scheduler, network)
    faces, windows = frames(1)
    jobs = [
        scheduler.submit(key, faces.astype(np.float32), windows, form="floats")
        for key in ("a1", "a2")
    ]
    network.go_on_freely()
    for job in jobs:
        assert job.result(WAIT_S).dtype == np.float32
    assert batches.seen == []


def test_one_bad_key_does_not_fail_those_it_was_run_with(
    make: Make, network: Network, batches: Batches
) -> None:
    network.errors["a2"] = Unavailable("it was unloaded")
    scheduler = make(across=Across(initial, batches))
    busy(scheduler, network)
    jobs = {key: scheduler.submit(key, *frames(1)) for key in ("a1", "a2", "a3")}
    network.go_on_freely()
    for key in ("a1", "a3"):
        assert np.array_equal(jobs[key].result(WAIT_S), expected(1))
    with pytest.raises(Unavailable, match="unloaded"):
        jobs["a2"].result(WAIT_S)
    assert scheduler.stats().failed == 1


def test_other_keys_cost_nobody_a_deadline(
    make: Make, network: Network, batches: Batches, clock: Clock
) -> None:
    network.frame_s = 0.1
    scheduler = make(across=Across(initial, batches), queue_size=50)
    network.go_on_freely()
    scheduler.submit("a1", *frames(4)).result(WAIT_S)  # it is known how long a frame takes
    network.open = False
    busy(scheduler, network)
    hurried = scheduler.submit("a1", *frames(1), deadline=clock.now + 0.35)
    others = [scheduler.submit(f"a{number}", *frames(4)) for number in (2, 3)]
    network.go_on_freely()
    assert np.array_equal(hurried.result(WAIT_S), expected(1))
    for job in others:
        job.result(WAIT_S)
    assert all(key != "a1" for batch in batches.seen for key, _ in batch)


def test_what_is_joined_stays_of_its_type() -> None:
    going, running = threading.Event(), threading.Event()
    seen: list[tuple[type, int]] = []

    def run(key: str, faces: Array, windows: Float32Array) -> Array:
        running.set()
        assert going.wait(WAIT_S)
        seen.append((type(faces), len(faces)))
        return faces

    with Scheduler(run, workers=1, queue_size=9, join=True) as scheduler:
        numbers = np.arange(2).view(FrameNumbers)
        jobs = []
        for _ in range(3):
            jobs.append(scheduler.submit("a", numbers, np.zeros((2, 1), np.float32)))
            assert running.wait(WAIT_S)  # the first has left the queue
        going.set()
        wait(jobs, WAIT_S)
    assert seen == [(FrameNumbers, 2), (FrameNumbers, 4)]
