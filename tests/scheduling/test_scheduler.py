import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, Future, wait

import numpy as np
import pytest
from tests.scheduling.schedules import Make, Network, busy, expected, frames
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import (
    SERVICES,
    DeadlineExceeded,
    Float32Array,
    InvalidInput,
    Overloaded,
    Unavailable,
)
from lipwire.scheduling.jobs import Array
from lipwire.scheduling.scheduler import Scheduler


def test_mouths_come_back_in_order(make: Make, network: Network) -> None:
    network.go_on_freely()
    job = make().submit("a", *frames(5))
    np.testing.assert_array_equal(job.result(WAIT_S), expected(5))
    assert network.runs == [("a", 5)]


def test_a_large_request_is_run_in_pieces(make: Make, network: Network) -> None:
    network.go_on_freely()
    job = make(max_run_frames=8).submit("a", *frames(20))
    np.testing.assert_array_equal(job.result(WAIT_S), expected(20))
    assert network.runs == [("a", 8), ("a", 8), ("a", 4)]


def test_free_workers_share_a_request(make: Make, network: Network) -> None:
    scheduler = make(workers=2, max_run_frames=8)
    job = scheduler.submit("a", *frames(6))
    until(lambda: len(network.runs) == 2)
    assert sorted(network.runs) == [("a", 3), ("a", 3)]
    assert scheduler.stats().busy == 2
    network.go_on_freely()
    np.testing.assert_array_equal(job.result(WAIT_S), expected(6))


def test_a_request_stays_whole_where_pieces_gain_nothing(
    make: Make, network: Network, clock: Clock
) -> None:
    network.frame_s = 0.1
    network.go_on_freely()
    scheduler = make(workers=4, max_run_frames=50, split=False)
    job = scheduler.submit("a", *frames(24))
    np.testing.assert_array_equal(job.result(WAIT_S), expected(24))
    assert network.runs == [("a", 24)]
    # Nor is it expected to be done sooner than one worker does it.
    with pytest.raises(DeadlineExceeded):
        scheduler.submit("a", *frames(24), deadline=clock() + 1.5)
    scheduler.submit("a", *frames(24), deadline=clock() + 3.0).result(WAIT_S)


def test_a_busy_key_does_not_keep_another_waiting(make: Make, network: Network) -> None:
    scheduler = make(max_run_frames=4)
    busy(scheduler, network)
    for _ in range(5):
        scheduler.submit("busy", *frames(16))
    quiet = scheduler.submit("quiet", *frames(4))
    network.go_on_freely()
    quiet.result(WAIT_S)
    assert network.runs.index(("quiet", 4)) <= 2


def test_times_of_a_job(make: Make, network: Network, clock: Clock) -> None:
    scheduler = make(max_run_frames=8)
    network.frame_s = 0.5
    busy(scheduler, network)
    job = scheduler.submit("a", *frames(4))
    network.go_on_freely()
    job.result(WAIT_S)
    assert job.queue_s == pytest.approx(0.5)
    assert job.service_s == pytest.approx(2.0)
    assert job.finished_s == pytest.approx(1002.5)
    assert job.worker == 0
    stats = scheduler.stats()
    assert stats.service.p50_s == pytest.approx(0.5)
    assert stats.wait.p99_s == pytest.approx(0.5)
    assert (stats.runs, stats.frames, stats.finished) == (2, 5, 2)


# -- refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("faces", "windows"), [(0, 0), (2, 1), (1, 2)])
def test_lengths_that_do_not_fit(make: Make, faces: int, windows: int) -> None:
    with pytest.raises(InvalidInput, match=rf"^there are {faces} faces and {windows} windows"):
        make().submit("a", frames(faces)[0], frames(windows)[1])


@pytest.mark.parametrize("setting", ["workers", "queue_size", "max_run_frames"])
def test_settings_that_make_no_sense(make: Make, setting: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^{setting} is 0; allowed are 1 and above"):
        make(**{setting: 0})


# -- cancelling and failing ----------------------------------------------------------------------


def test_a_cancelled_request_leaves_the_queue(make: Make, network: Network) -> None:
    scheduler = make(queue_size=1)
    busy(scheduler, network)
    job = scheduler.submit("a", *frames(1))
    assert job.cancel()
    assert job.cancel()
    assert scheduler.stats().queued == 0
    assert scheduler.stats().cancelled == 1
    assert job in wait([job], WAIT_S).done
    with pytest.raises(CancelledError):
        job.result()
    second = scheduler.submit("b", *frames(1))
    network.go_on_freely()
    second.result(WAIT_S)
    assert [key for key, _ in network.runs] == ["blocker", "b"]


def test_cancelling_a_request_that_is_being_run_saves_the_rest(
    make: Make, network: Network
) -> None:
    scheduler = make(max_run_frames=4)
    job = scheduler.submit("a", *frames(40))
    until(lambda: network.runs == [("a", 4)])
    assert job.cancel()
    after = scheduler.submit("b", *frames(1))
    network.go_on_freely()
    after.result(WAIT_S)
    assert network.runs == [("a", 4), ("b", 1)]


def test_a_finished_request_cannot_be_cancelled(make: Make, network: Network) -> None:
    network.go_on_freely()
    job = make().submit("a", *frames(1))
    job.result(WAIT_S)
    assert not job.cancel()


def test_a_request_that_ends_otherwise_at_that_moment_cannot_be_cancelled(
    make: Make, network: Network
) -> None:
    job = make().submit("a", *frames(1))
    until(lambda: network.runs)
    job.settled = True  # its worker is about to end it
    assert not job.cancel()
    assert not job.done()
    job.settled = False
    network.go_on()
    job.result(WAIT_S)


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (ValueError("bad weights"), ValueError),
        (SystemExit(3), RuntimeError),
        (KeyboardInterrupt(), RuntimeError),
        (MemoryError(), MemoryError),
    ],
)
def test_workers_survive_whatever_a_run_raises(
    make: Make, network: Network, error: BaseException, seen: type[Exception]
) -> None:
    network.go_on_freely()
    network.errors["bad"] = error
    scheduler = make(max_run_frames=4)
    for _ in range(3):
        with pytest.raises(seen):
            scheduler.submit("bad", *frames(9)).result(WAIT_S)
    network.runs.clear()
    np.testing.assert_array_equal(scheduler.submit("good", *frames(2)).result(WAIT_S), expected(2))
    assert network.runs == [("good", 2)], "the rest of a request that failed is not run"
    assert scheduler.stats().failed == 3


def test_a_run_that_gives_too_few_mouths_is_an_error() -> None:
    def short(key: str, faces: Array, windows: Float32Array) -> Array:
        return faces[1:]

    with (
        Scheduler(short, workers=1, queue_size=1) as scheduler,
        pytest.raises(RuntimeError, match="a run of 3 frames gave 2 mouths"),
    ):
        scheduler.submit("a", *frames(3)).result(WAIT_S)


# -- stopping ------------------------------------------------------------------------------------


def test_drain_finishes_what_is_in_hand_and_takes_no_more(make: Make, network: Network) -> None:
    scheduler = make()
    jobs = [busy(scheduler, network), scheduler.submit("a", *frames(9))]
    drained: Future[bool] = Future()
    thread = threading.Thread(target=lambda: drained.set_result(scheduler.drain(WAIT_S)))
    thread.start()
    until(lambda: scheduler._draining)
    with pytest.raises(Unavailable, match="stopping"):
        scheduler.submit("b", *frames(1))
    network.go_on_freely()
    assert drained.result(WAIT_S)
    thread.join()
    assert all(job.done() and not job.exception() for job in jobs)
    assert not any(worker.is_alive() for worker in scheduler._workers)
    assert scheduler.drain(0.0)


def test_drain_gives_up_when_time_is_up(make: Make, network: Network) -> None:
    scheduler = make()
    running, waiting = busy(scheduler, network), scheduler.submit("a", *frames(1))
    assert not scheduler.drain(0.01)
    with pytest.raises(Unavailable):
        waiting.result(WAIT_S)
    assert not running.done()
    network.go_on_freely()
    np.testing.assert_array_equal(running.result(WAIT_S), expected(1))
    assert scheduler.drain(WAIT_S)


def test_a_block_leaves_no_threads(network: Network) -> None:
    network.go_on_freely()
    with Scheduler(network, workers=3, queue_size=5) as scheduler:
        scheduler.submit("a", *frames(4)).result(WAIT_S)
        workers = scheduler._workers
        assert len(workers) == 3
        assert set(workers) <= set(threading.enumerate())
    assert not set(workers) & set(threading.enumerate())


# -- everything at once --------------------------------------------------------------------------


@pytest.mark.slow
def test_whatever_threads_do() -> None:
    """Every future ends, with its own mouths or with an error it may have; nothing is lost.

    Which error comes how often is for the moment to say; each has a test of its own.
    """

    def run(key: int, faces: Array, windows: Float32Array) -> Array:
        time.sleep(0.0002 * len(faces))  # so that queues fill and others come meanwhile
        if key == 3 and windows[0, 0] % 3 == 0:
            raise ValueError("sometimes")
        assert (faces[:, 1] == key).all(), "frames of another key"
        return np.asarray(faces[:, :1] + windows[:, :1], np.float32)

    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    wrong: list[str] = []

    def live(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(150):
            key, count = choose.randrange(5), choose.randrange(1, 20)
            faces = np.full((count, 2), key, np.float32)
            faces[:, 0] = np.arange(count)
            mark = np.float32(choose.randrange(1000))
            deadline = choose.choice([None, None, time.monotonic() + choose.random() * 0.03])
            try:
                job = scheduler.submit(
                    key,
                    faces,
                    np.full((count, 1), mark),
                    deadline=deadline,
                    service=choose.choice(SERVICES),
                    tenant=choose.choice("xy"),
                )
                if choose.random() < 0.2:
                    time.sleep(choose.random() * 0.003)  # it may be queued, running or done
                    job.cancel()
                mouths = job.result(WAIT_S)
                what = "done"
                if not (mouths[:, 0] == np.arange(count) + mark).all():
                    wrong.append(f"{key}: {mouths[:, 0]}")
            except (ValueError, CancelledError, DeadlineExceeded, Overloaded) as error:
                what = type(error).__name__
            except BaseException as error:
                wrong.append(repr(error))
                what = "wrong"
            with lock:
                outcomes[what] += 1

    with Scheduler(run, workers=3, queue_size=4, max_run_frames=4) as scheduler:
        threads = [threading.Thread(target=live, args=(seed,)) for seed in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * WAIT_S)
            assert not thread.is_alive(), "a thread hangs"
        assert scheduler.drain(WAIT_S)
    assert wrong == []
    assert outcomes.total() == 1500
    stats = scheduler.stats()
    assert (stats.queued, stats.queued_frames, stats.busy) == (0, 0, 0)
    assert stats.finished == outcomes["done"]
    assert stats.failed == outcomes["ValueError"]
    assert stats.cancelled == outcomes["CancelledError"]
