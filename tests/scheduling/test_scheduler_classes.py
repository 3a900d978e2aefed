"""Classes of requests: live before batch before render, and what live ones may do to others."""

from collections.abc import Sequence

import pytest
from tests.scheduling.schedules import Make, Network, busy, expected, frames
from tests.support.waiting import WAIT_S, Clock, until

from lipwire.domain import DeadlineExceeded, Float32Array, Overloaded, Service
from lipwire.scheduling.jobs import Across, Array, Job
from lipwire.scheduling.scheduler import Scheduler


def learn(scheduler: Scheduler[str], network: Network, frame_s: float) -> None:
    """Have a frame of any key be expected to take ``frame_s``, and runs held back again."""
    network.frame_s = frame_s
    network.go_on()
    scheduler.submit("learnt", *frames(1)).result(WAIT_S)
    network.runs.clear()


def all_of(network: Network, jobs: Sequence[Job[str]]) -> list[tuple[str, int]]:
    """Let everything be run; the runs after the first, which was under way."""
    network.go_on_freely()
    for job in jobs:
        job.result(WAIT_S)
    return network.runs[1:]


def test_live_is_run_before_batch_and_batch_before_render(make: Make, network: Network) -> None:
    scheduler = make()
    busy(scheduler, network)
    order: tuple[Service, ...] = ("render", "batch", "live", "render", "live")
    jobs = [
        scheduler.submit(f"{service}-{number}", *frames(1), service=service)
        for number, service in enumerate(order)
    ]
    assert [key for key, _ in all_of(network, jobs)] == [
        "live-2",
        "live-4",
        "batch-1",
        "render-0",
        "render-3",
    ]


def test_of_live_requests_the_earliest_deadline_is_first(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make()
    busy(scheduler, network)
    jobs = [
        scheduler.submit(
            key,
            *frames(1),
            service="live",
            deadline=None if in_s is None else clock.now + in_s,
        )
        for key, in_s in (("none-1", None), ("third", 3), ("first", 1), ("none-2", None))
    ]
    order = [key for key, _ in all_of(network, jobs)]
    assert order == ["first", "third", "none-1", "none-2"]


def test_a_live_request_comes_between_the_pieces_of_a_large_one(
    make: Make, network: Network
) -> None:
    scheduler = make(max_run_frames=8)
    large = scheduler.submit("large", *frames(24))
    until(lambda: network.runs == [("large", 8)])
    live = scheduler.submit("live", *frames(2), service="live")
    network.go_on(2)
    live.result(WAIT_S)
    assert network.runs[:2] == [("large", 8), ("live", 2)], "a run under way goes on to its end"
    network.go_on_freely()
    large.result(WAIT_S)


def test_a_tenant_with_many_keys_has_no_more_turns(make: Make, network: Network) -> None:
    scheduler = make(queue_size=200)
    busy(scheduler, network)
    jobs = [scheduler.submit(f"large-{n}", *frames(8), tenant="large") for n in range(100)]
    jobs += [scheduler.submit("small", *frames(8), tenant="small") for _ in range(3)]
    order = [key.partition("-")[0] for key, _ in all_of(network, jobs)]
    assert order[:5] == ["large", "small", "small", "small", "large"]


# -- expectations ----------------------------------------------------------------------------------


def test_a_live_request_is_expected_to_wait_for_earlier_live_ones_alone(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    learn(scheduler, network, 0.1)
    busy(scheduler, network)
    for _ in range(3):
        scheduler.submit("batch", *frames(50))
        scheduler.submit("render", *frames(50), service="render")
    scheduler.submit("later", *frames(5), service="live", deadline=clock.now + 9.0)
    scheduler.submit("whenever", *frames(5), service="live")
    scheduler.submit("earlier", *frames(5), service="live", deadline=clock.now + 0.7)
    # 0.1 s are under way, 0.5 s are earlier, 0.2 s are its own: 0.8 s.
    with pytest.raises(DeadlineExceeded, match=r"about 800 ms .* the deadline is in 790 ms"):
        scheduler.submit("new", *frames(2), service="live", deadline=clock.now + 0.79)


def test_batch_is_expected_to_wait_for_live_and_not_for_render(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    learn(scheduler, network, 0.1)
    busy(scheduler, network)
    scheduler.submit("live", *frames(10), service="live")
    scheduler.submit("render", *frames(50), service="render")
    with pytest.raises(DeadlineExceeded, match="about 1200 ms"):
        scheduler.submit("batch", *frames(1), deadline=clock.now + 1.1)
    scheduler.submit("batch", *frames(1), deadline=clock.now + 1.3)
    with pytest.raises(DeadlineExceeded, match="about 1400 ms"):  # render waits for both
        scheduler.submit("new", *frames(1), service="render", deadline=clock.now + 1.3)


def test_a_tenants_request_is_expected_to_wait_for_as_much_of_each_other_tenant(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8, queue_size=99)
    learn(scheduler, network, 0.1)
    busy(scheduler, network)
    for number in range(40):
        scheduler.submit(f"avatar-{number}", *frames(10), tenant="large")
    scheduler.submit("mine", *frames(3), tenant="small")
    # 0.1 s under way; of the small tenant 3 of one key and 5 of the other; of the large one 8.
    with pytest.raises(DeadlineExceeded, match="about 1700 ms"):
        scheduler.submit("new", *frames(5), tenant="small", deadline=clock.now + 1.6)
    scheduler.submit("new", *frames(5), tenant="small", deadline=clock.now + 1.8)


# -- a full queue ----------------------------------------------------------------------------------


def test_a_live_request_takes_the_place_of_render_and_then_of_batch(
    make: Make, network: Network
) -> None:
    scheduler = make(queue_size=3, join=False)
    busy(scheduler, network)
    render = scheduler.submit("render", *frames(1), service="render")
    batch = [scheduler.submit(key, *frames(1)) for key in "ab"]
    live = []
    for gone in (render, batch[1], batch[0]):
        live.append(scheduler.submit("live", *frames(1), service="live"))
        with pytest.raises(Overloaded, match=r"^3 requests wait .*; allowed are 3$"):
            gone.result(WAIT_S)
    with pytest.raises(Overloaded):
        scheduler.submit("live", *frames(1), service="live")
    with pytest.raises(Overloaded):
        scheduler.submit("c", *frames(1))
    assert all_of(network, live) == [("live", 1)] * 3
    classes = scheduler.stats().classes
    assert {name: each.refused_full for name, each in classes.items()} == {
        "live": 1,
        "batch": 3,
        "render": 1,
    }


def test_a_live_request_takes_the_place_of_one_that_was_begun(make: Make, network: Network) -> None:
    scheduler = make(queue_size=1, max_run_frames=4)
    begun = scheduler.submit("a", *frames(9))
    until(lambda: network.runs == [("a", 4)])
    live = scheduler.submit("live", *frames(1), service="live")
    with pytest.raises(Overloaded):
        begun.result(WAIT_S)
    assert all_of(network, [live]) == [("live", 1)]


def test_batch_takes_the_place_of_render_and_never_of_live(make: Make, network: Network) -> None:
    scheduler = make(queue_size=2, join=False)
    busy(scheduler, network)
    live = scheduler.submit("live", *frames(1), service="live")
    render = scheduler.submit("render", *frames(1), service="render")
    batch = scheduler.submit("batch", *frames(1))
    with pytest.raises(Overloaded):
        render.result(WAIT_S)
    with pytest.raises(Overloaded):
        scheduler.submit("render", *frames(1), service="render")
    assert all_of(network, [live, batch]) == [("live", 1), ("batch", 1)]


def test_of_a_queue_full_of_live_requests_the_tenant_with_most_loses_one(
    make: Make, network: Network
) -> None:
    scheduler = make(queue_size=3, join=False)
    busy(scheduler, network)
    much = [scheduler.submit(f"a{n}", *frames(1), service="live", tenant="large") for n in range(3)]
    little = scheduler.submit("b", *frames(1), service="live", tenant="small")
    with pytest.raises(Overloaded):
        much[2].result(WAIT_S)
    assert [key for key, _ in all_of(network, [*much[:2], little])] == ["a0", "a1", "b"]


# -- short runs while there are live requests -----------------------------------------------------


def test_runs_of_other_classes_take_a_frames_time_at_most_for_two_seconds_after_a_live_one(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    learn(scheduler, network, 0.02)
    busy(scheduler, network)
    live = scheduler.submit("live", *frames(8), service="live")
    jobs = [scheduler.submit("batch", *frames(4))]
    jobs += [scheduler.submit("render", *frames(4), service="render")]
    assert all_of(network, [live, *jobs]) == [
        ("live", 8),
        ("batch", 2),
        ("batch", 2),
        ("render", 2),
        ("render", 2),
    ]
    network.runs.clear()
    clock.now += 2.0
    scheduler.submit("batch", *frames(8)).result(WAIT_S)
    assert network.runs == [("batch", 8)]


def test_runs_are_short_for_as_long_as_live_requests_are_expected(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    learn(scheduler, network, 0.02)
    network.go_on_freely()
    scheduler.expect_live(30.0)
    scheduler.expect_live(1.0)  # takes nothing away
    clock.now += 29.0
    scheduler.submit("batch", *frames(4)).result(WAIT_S)
    assert network.runs == [("batch", 2), ("batch", 2)]
    clock.now += 30.0
    scheduler.submit("batch", *frames(4)).result(WAIT_S)
    assert network.runs[2:] == [("batch", 4)]


def test_a_worker_is_kept_free_for_live_requests(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(workers=3, max_run_frames=1)
    network.go_on()
    scheduler.submit("live", *frames(1), service="live").result(WAIT_S)
    batch = scheduler.submit("batch", *frames(5))
    until(lambda: len(network.runs) == 3)
    live = scheduler.submit("live", *frames(1), service="live")
    until(lambda: len(network.runs) == 4)  # no run has ended
    assert network.runs[3] == ("live", 1)
    clock.now += 2.0
    render = scheduler.submit("render", *frames(1), service="render")
    network.go_on_freely()
    for job in (batch, live, render):
        job.result(WAIT_S)


def test_all_workers_run_other_classes_where_there_was_no_live_request_of_late(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(workers=3, max_run_frames=1)
    network.go_on()
    scheduler.submit("live", *frames(1), service="live").result(WAIT_S)
    clock.now += 2.0
    scheduler.submit("batch", *frames(5))
    until(lambda: len(network.runs) == 4)
    network.go_on_freely()


def test_a_single_worker_is_kept_free_for_nobody(make: Make, network: Network) -> None:
    scheduler = make(max_run_frames=1)
    network.go_on_freely()
    scheduler.submit("live", *frames(1), service="live").result(WAIT_S)
    scheduler.submit("batch", *frames(5)).result(WAIT_S)


def test_a_short_run_has_one_frame_at_least(make: Make, network: Network) -> None:
    scheduler = make(max_run_frames=8)
    learn(scheduler, network, 0.5)
    busy(scheduler, network)
    scheduler.submit("live", *frames(1), service="live")
    batch = scheduler.submit("batch", *frames(2))
    assert all_of(network, [batch]) == [("live", 1), ("batch", 1), ("batch", 1)]


def test_a_short_run_has_one_frame_where_no_frame_was_ever_run(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make(max_run_frames=8)
    network.frame_s = 0.01
    blocker = busy(scheduler, network)
    scheduler.submit("a", *frames(1), service="live").cancel()
    faces, windows = frames(5)
    floats = scheduler.submit("a", faces.astype("float32"), windows, form="floats")
    assert all_of(network, [blocker, floats]) == [("a", 1), ("a", 4)]


def test_joined_runs_are_short_too(make: Make, network: Network, batches: "Together") -> None:
    scheduler = make(max_run_frames=8, across=Across(lambda key: "all", batches))
    learn(scheduler, network, 0.02)
    busy(scheduler, network)
    live = scheduler.submit("live", *frames(1), service="live")
    jobs = [scheduler.submit(key, *frames(1)) for key in ("a", "a", "a", "b", "c")]
    all_of(network, [live, *jobs])
    assert [sum(count for _, count in run) for run in batches.seen] == [2]
    assert network.runs[1:] == [("live", 1), ("a", 2), ("a", 1), ("b", 1), ("c", 1)]


class Together:
    """Runs several keys at once, and remembers which."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.seen: list[list[tuple[str, int]]] = []

    def __call__(self, parts: list[tuple[str, Array, Float32Array]]) -> list[Array]:
        self.seen.append([(key, len(faces)) for key, faces, _ in parts])
        return [self._network(key, faces, windows) for key, faces, windows in parts]


@pytest.fixture
def batches(network: Network) -> Together:
    return Together(network)


def test_live_requests_are_joined_with_each_other_and_not_with_batch(
    make: Make, network: Network, batches: Together
) -> None:
    scheduler = make(across=Across(lambda key: None if key == "-" else "all", batches))
    learn(scheduler, network, 0.001)
    busy(scheduler, network)
    given: list[tuple[str, Service]] = [
        ("a", "live"),
        ("b", "batch"),
        ("-", "live"),
        ("c", "live"),
        ("a", "live"),
        ("d", "batch"),
    ]
    jobs = [
        scheduler.submit(key, *frames(1, 10 * number), service=service)
        for number, (key, service) in enumerate(given)
    ]
    all_of(network, jobs)
    for number, job in enumerate(jobs):
        assert (job.result() == expected(1, 10 * number)).all()
    assert batches.seen == [[("a", 2), ("c", 1)], [("b", 1), ("d", 1)]]
    assert ("-", 1) in network.runs


def test_live_requests_are_not_joined_where_that_costs_a_deadline(
    make: Make, network: Network, batches: Together, clock: Clock
) -> None:
    scheduler = make(across=Across(lambda key: "all", batches))
    learn(scheduler, network, 0.1)
    busy(scheduler, network)
    hurried = scheduler.submit("a", *frames(2), service="live", deadline=clock.now + 0.35)
    other = scheduler.submit("b", *frames(2), service="live", deadline=clock.now + 9.0)
    assert all_of(network, [hurried, other]) == [("a", 2), ("b", 2)]
    assert batches.seen == []


def test_a_key_of_two_tenants_comes_once_in_a_run_of_several(
    make: Make, network: Network, batches: Together
) -> None:
    scheduler = make(across=Across(lambda key: "all", batches))
    busy(scheduler, network)
    jobs = [
        scheduler.submit(key, *frames(2, first), tenant=tenant)
        for key, tenant, first in (("a", "x", 0), ("b", "x", 10), ("a", "y", 20))
    ]
    all_of(network, jobs)
    assert batches.seen == [[("a", 4), ("b", 2)]]
    for job, first in zip(jobs, (0, 10, 20), strict=True):
        assert (job.result() == expected(2, first)).all()


# -- numbers ---------------------------------------------------------------------------------------


def test_numbers_of_each_class(make: Make, network: Network, clock: Clock) -> None:
    scheduler = make()
    network.frame_s = 0.5
    busy(scheduler, network)
    live = scheduler.submit("a", *frames(2), service="live", deadline=clock.now + 9.0)
    scheduler.submit("b", *frames(3), service="render")
    classes = scheduler.stats().classes
    assert list(classes) == ["live", "batch", "render"]
    assert [(each.queued, each.queued_frames) for each in classes.values()] == [
        (1, 2),
        (0, 0),
        (1, 3),
    ]
    network.go_on(2)
    live.result(WAIT_S)
    with pytest.raises(DeadlineExceeded):
        scheduler.submit("a", *frames(1), service="live", deadline=clock.now)
    stats = scheduler.stats()
    assert [each.frames for each in stats.classes.values()] == [2, 1, 0]
    assert [each.refused_deadline for each in stats.classes.values()] == [1, 0, 0]
    assert (stats.frames, stats.refused_deadline) == (3, 1)
    assert stats.classes["live"].wait.p50_s == pytest.approx(0.5)
    assert stats.classes["batch"].wait.p99_s == 0.0


def test_the_speed_of_live_frames_is_that_of_live_requests_and_single_frames(
    make: Make, network: Network, clock: Clock
) -> None:
    scheduler = make()
    network.go_on_freely()
    assert scheduler.live_frame_s("anna") is None
    network.frame_s = 0.5
    scheduler.submit("anna", *frames(4)).result(WAIT_S)
    assert scheduler.live_frame_s("anna") is None
    network.frame_s = 0.02
    scheduler.submit("anna", *frames(4), service="live").result(WAIT_S)
    assert scheduler.live_frame_s("anna") == pytest.approx(0.02)
    network.frame_s = 0.03
    for _ in range(2):
        scheduler.submit("anna", *frames(1)).result(WAIT_S)
    assert scheduler.live_frame_s("anna") == pytest.approx(0.03)
    assert scheduler.live_frame_s("bert") is None


def test_frames_are_computed_side_by_side_where_workers_compute_by_themselves(make: Make) -> None:
    assert make(workers=2).side_by_side == 2
    assert make(workers=2, split=False).side_by_side == 1
