"""A run over a table of renders, from its jobs to the summary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from lipwire.domain import InvalidInput
from lipwire.rendermany.dispatch import ATTEMPTS, Dispatch
from lipwire.rendermany.jobs import RenderJob, RenderSettings
from lipwire.rendermany.ledger import Ledger
from lipwire.rendermany.workers import Happened, Workers

_LOOK_S: Final = 1.0
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A job, and a line about it: why it was not rendered (``RunSummary.failed``), or what is to be
    known of its video (``RunSummary.warnings``)."""

    job: RenderJob
    reason: str


@dataclass(slots=True)
class RunSummary:
    """What a run has done: how many videos were rendered now (``done``) and by earlier runs
    (``before``), what ``failed``, how often a worker was lost (``workers_lost``), and how many
    ``frames`` and seconds of video (``video_s``) the videos rendered now have. ``failed`` and
    ``warnings`` are in the table's order."""

    done: int = 0
    before: int = 0
    failed: list[Failure] = field(default_factory=list)
    workers_lost: int = 0
    frames: int = 0
    video_s: float = 0.0
    warnings: list[Failure] = field(default_factory=list)
    """Of videos that are finished, what is to be known of them."""


def render_many(
    jobs: Sequence[RenderJob],
    settings: RenderSettings,
    ledger: Ledger,
    open_workers: Callable[[int], Workers],
    *,
    replace: bool = False,
    told: Callable[[int, int], None] = lambda _done, _total: None,
) -> RunSummary:
    """Render all ``jobs`` that ``ledger`` does not know as finished, with ``settings``, wait for
    the end, and return what was done.

    ``open_workers(count)`` starts workers for ``count`` jobs; it is not called where there is
    nothing to do, and what it returns is closed in the end. A job whose worker is lost is given to
    another worker, but tried three times at most in all. A job that was tried so often, or cannot
    be rendered, is in ``failed`` of the summary, and the others go on. ``told(done, total)`` is
    called in this thread before the first job and after each: how many of all ``jobs`` are over,
    failed ones and those of earlier runs included. A video that exists and was not made by an
    earlier run is replaced only with ``replace``.

    Raises InvalidInput where such a video exists and ``replace`` is False, NotFound where a
    recording is missing, both before anything is rendered; StorageFailed where the ledger cannot be
    written, Unavailable where no workers can be started any more, and whatever ``open_workers``
    raises. Videos that are finished then stay, and the next run knows them.
    """
    keys = {job: job.key(settings) for job in jobs}
    wanted = [job for job in jobs if not ledger.has(job.out, keys[job])]
    foreign = [job for job in wanted if job.out.exists() and not ledger.knows(job.out)]
    if foreign and not replace:
        named = ", ".join(str(job.out) for job in foreign[:_NAMED])
        more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
        raise InvalidInput(f"there already: {named}{more}; --force replaces them")
    summary = RunSummary(before=len(jobs) - len(wanted))
    told(summary.before, len(jobs))
    if not wanted:
        return summary
    dispatch = Dispatch(wanted)
    workers = open_workers(len(wanted))
    try:
        idle: list[str] = []
        while dispatch.left:
            for each in workers.happened(_LOOK_S):
                if each.what == "lost":
                    _note_lost(each, dispatch, summary, idle)
                    told(len(jobs) - dispatch.left, len(jobs))
                    continue
                if each.what == "finished":
                    job = dispatch.finished(each.worker)
                    if each.result.error:
                        summary.failed.append(Failure(job, each.result.error))
                    else:
                        ledger.add(job.out, keys[job], each.result.size_bytes)
                        _note_done(each, job, summary)
                    told(len(jobs) - dispatch.left, len(jobs))
                idle.append(each.worker)
            while idle and (job_given := dispatch.give(idle[0])) is not None:
                workers.give(idle.pop(0), job_given)
    finally:
        workers.close()
    for told_of in (summary.failed, summary.warnings):
        told_of.sort(key=lambda failure: failure.job.line)
    return summary


def _note_done(each: Happened, job: RenderJob, summary: RunSummary) -> None:
    summary.done += 1
    summary.frames += each.result.frames
    summary.video_s += each.result.video_s
    summary.warnings += [Failure(job, warning) for warning in each.result.warnings]


def _note_lost(each: Happened, dispatch: Dispatch, summary: RunSummary, idle: list[str]) -> None:
    summary.workers_lost += 1
    if each.worker in idle:
        idle.remove(each.worker)
    job = dispatch.lost(each.worker)
    if job is not None:
        reason = f"{ATTEMPTS} workers were lost with it, the last as {each.reason}"
        summary.failed.append(Failure(job, reason))
