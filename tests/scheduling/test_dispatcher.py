"""What a scheduler decides, without threads: the time is given."""

import numpy as np
import pytest
from tests.scheduling.schedules import frames

from lipwire.domain import DeadlineExceeded, Overloaded, Service
from lipwire.scheduling.dispatcher import Dispatcher
from lipwire.scheduling.jobs import Job


def dispatcher(
    *, workers: int = 1, queue_size: int = 2, join: bool = False, split: bool = True
) -> Dispatcher[str]:
    return Dispatcher(
        workers=workers, queue_size=queue_size, max_run_frames=8, join=join, split=split
    )


def job(
    key: str = "anna",
    count: int = 1,
    *,
    deadline: float | None = None,
    service: Service = "batch",
    tenant: str = "",
) -> Job[str]:
    faces, windows = frames(count)
    return Job(
        key,
        "pixels",
        faces,
        np.asarray(windows),
        deadline=deadline,
        submitted_s=0.0,
        withdraw=lambda _job: False,
        service=service,
        tenant=tenant,
    )


def learnt(of: Dispatcher[str], frame_s: float) -> Dispatcher[str]:
    """Have a frame be expected to take ``frame_s``."""
    of.submit(job(), 0.0)
    of.ran(of.take(0, 0.0), frame_s, 0.0)
    of.freed(0)
    return of


def test_a_worker_is_busy_until_it_is_freed() -> None:
    of = dispatcher(workers=2)
    of.submit(job(), 0.0)
    assert of.may_begin(0.0)
    (piece,) = of.take(1, 0.0)
    assert (piece.frames, piece.job.started_s, piece.job.worker) == (1, 0.0, 1)
    assert (of.busy, of.may_begin(0.0)) == (1, False)
    of.freed(1)
    assert of.busy == 0
    assert of.take(1, 0.0) == []


def test_free_workers_share_the_frames_of_a_request() -> None:
    of = dispatcher(workers=2)
    of.submit(job(count=6), 0.0)
    assert [sum(piece.frames for piece in of.take(number, 0.0)) for number in (0, 1)] == [3, 3]
    alone = dispatcher(workers=2, split=False)
    alone.submit(job(count=6), 0.0)
    assert sum(piece.frames for piece in alone.take(0, 0.0)) == 6


def test_a_deadline_out_of_reach_is_refused_at_once() -> None:
    of = learnt(dispatcher(), 0.1)
    of.submit(job(count=5), 1.0)
    with pytest.raises(DeadlineExceeded, match="would take about 1000 ms"):
        of.submit(job(count=5, deadline=1.9), 1.0)
    of.submit(job(count=5, deadline=2.1), 1.0)
    assert of.stats().refused_deadline == 1


def test_what_waited_too_long_is_taken_out() -> None:
    of = learnt(dispatcher(), 0.1)
    waits = job(count=5, deadline=2.0)
    of.submit(waits, 1.0)
    assert of.late_heads(1.4) == []
    ((late, error),) = of.late_heads(1.6)
    assert late is waits
    assert isinstance(error, DeadlineExceeded)
    assert len(of.queue) == 0


def test_a_full_queue_refuses_the_newest_or_gives_up_another_tenants() -> None:
    of = dispatcher(queue_size=2)
    of.submit(job(tenant="one"), 0.0)
    of.take(0, 0.0)  # being run
    many = [job(tenant="one"), job(tenant="one")]
    assert [of.submit(each, 0.0) for each in many] == [[], []]
    with pytest.raises(Overloaded, match="2 requests wait for a worker; allowed are 2"):
        of.submit(job(tenant="one"), 0.0)
    ((pushed_out, error),) = of.submit(job(tenant="other"), 0.0)
    assert pushed_out is many[1]
    assert isinstance(error, Overloaded)
    assert of.stats().refused_full == 2


def test_while_live_requests_come_other_runs_are_short() -> None:
    of = learnt(dispatcher(workers=2), 0.02)
    of.submit(job(service="live"), 1.0)
    of.submit(job("bert", count=8), 1.0)
    assert [piece.job.service for piece in of.take(0, 1.0)] == ["live"]
    assert sum(piece.frames for piece in of.take(1, 1.0)) == 2  # 40 ms
    of.freed(0)
    assert not of.may_begin(1.1)  # one worker is kept free
    assert of.may_begin(3.1)


def test_live_frames_are_learnt_apart() -> None:
    of = dispatcher()
    assert of.live_frame_s("anna", 0.0) is None
    of.submit(job(count=4), 0.0)
    of.ran(of.take(0, 0.0), 4.0, 0.0)
    of.freed(0)
    assert of.live_frame_s("anna", 0.0) is None
    of.submit(job(count=2, service="live"), 0.0)
    of.ran(of.take(0, 0.0), 0.5, 0.0)
    assert of.live_frame_s("anna", 1.0) == 0.25
