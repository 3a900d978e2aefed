"""A run over a table, with workers that do as they are told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.domain import InvalidInput, Unavailable
from lipwire.rendermany import (
    Happened,
    Ledger,
    RenderJob,
    RenderSettings,
    RunSummary,
    read_jobs,
    render_many,
)
from lipwire.rendermany.workers import JobResult

SETTINGS = RenderSettings()


class FakeWorkers:
    """Two workers that write a text for each video. ``fate(job)`` says how it goes: "" well, "lost"
    the worker is lost, another text is an error."""

    def __init__(self, fate: Callable[[RenderJob], str]) -> None:
        self.given: list[RenderJob] = []
        self.closed = False
        self._fate = fate
        self._next: list[Happened] = [Happened(name, "ready") for name in ("one", "two")]
        self._count = 2

    def happened(self, timeout_s: float) -> list[Happened]:
        assert timeout_s > 0
        found, self._next = self._next, []
        return found

    def give(self, worker: str, job: RenderJob) -> None:
        self.given.append(job)
        fate = self._fate(job)
        if fate == "lost":
            self._count += 1
            self._next.append(Happened(worker, "lost", reason="it ended by signal 9"))
            self._next.append(Happened(f"worker {self._count}", "ready"))
            return
        if not fate:
            job.out.write_text("video")
        result = JobResult(fate) if fate else JobResult("", 25, 1.0, 5, ("it is quiet",))
        self._next.append(Happened(worker, "finished", result))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def jobs(write_table: Callable[..., Path]) -> list[RenderJob]:
    return read_jobs(write_table(*(f"anna,a.wav,out/{n}.mp4" for n in range(5))))


def ran(
    jobs: list[RenderJob], fate: Callable[[RenderJob], str], *, replace: bool = False
) -> tuple[RunSummary, FakeWorkers, list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    workers = FakeWorkers(fate)
    with Ledger(jobs[0].out.parent.parent / "jobs.done") as ledger:
        summary = render_many(
            jobs,
            SETTINGS,
            ledger,
            lambda _count: workers,
            replace=replace,
            told=lambda *counts: told.append(counts),
        )
    return summary, workers, told


def test_each_video_is_made_once_and_not_again(jobs: list[RenderJob]) -> None:
    summary, workers, told = ran(jobs, lambda job: "")
    assert (summary.done, summary.before, summary.failed) == (5, 0, [])
    assert (summary.frames, summary.video_s) == (125, 5.0)
    assert [warning.job.line for warning in summary.warnings] == [2, 3, 4, 5, 6]
    assert sorted(job.line for job in workers.given) == [2, 3, 4, 5, 6]
    assert workers.closed
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    summary, workers, told = ran(jobs, lambda job: "")
    assert (summary.done, summary.before, workers.given) == (0, 5, [])
    assert told == [(5, 5)]


def test_what_failed_is_told_and_tried_again_by_the_next_run(jobs: list[RenderJob]) -> None:
    summary, _, _ = ran(jobs, lambda job: "no sound" if job.line == 3 else "")
    assert [(failed.job.line, failed.reason) for failed in summary.failed] == [(3, "no sound")]
    summary, workers, _ = ran(jobs, lambda job: "")
    assert (summary.done, summary.before) == (1, 4)
    assert [job.line for job in workers.given] == [3]


def test_a_job_that_ends_its_workers_is_given_up(jobs: list[RenderJob]) -> None:
    summary, workers, told = ran(jobs, lambda job: "lost" if job.line == 4 else "")
    assert (summary.done, summary.workers_lost) == (4, 3)
    assert told[-1] == (5, 5)
    assert [job.line for job in workers.given].count(4) == 3
    (failed,) = summary.failed
    assert failed.reason == "3 workers were lost with it, the last as it ended by signal 9"


def test_videos_of_somebody_else_are_kept_unless_they_are_to_be_replaced(
    jobs: list[RenderJob],
) -> None:
    jobs[1].out.write_text("holiday")
    with pytest.raises(InvalidInput, match=r"there already: .*1\.mp4; --force replaces them"):
        ran(jobs, lambda job: "")
    assert [job.out.exists() for job in jobs] == [False, True, False, False, False]
    assert ran(jobs, lambda job: "", replace=True)[0].done == 5
    for job in jobs:  # made by a run, for other settings: replaced by the next
        job.out.write_text("changed")
    assert ran(jobs, lambda job: "")[0].done == 5


def test_what_was_finished_before_an_error_is_known(jobs: list[RenderJob]) -> None:
    class Fails(FakeWorkers):
        def happened(self, timeout_s: float) -> list[Happened]:
            if len(self.given) >= 4:
                raise Unavailable("workers end as soon as they are started")
            return super().happened(timeout_s)

    workers = Fails(lambda job: "")
    with Ledger(jobs[0].out.parent.parent / "jobs.done") as ledger, pytest.raises(Unavailable):
        render_many(jobs, SETTINGS, ledger, lambda _count: workers)
    assert workers.closed
    summary, _, _ = ran(jobs, lambda job: "", replace=True)
    assert (summary.before, summary.done) == (2, 3)
