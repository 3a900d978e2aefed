"""``lipwire render-many``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipwire.cli.commands.render import Precision, Preset

if TYPE_CHECKING:
    from lipwire.rendermany import RunSummary, Workers

_NAMED = 20


def command(
    jobs: Annotated[
        Path,
        typer.Argument(
            help="A CSV file: a first line with avatar,audio,out (and start_frame), then a line a "
            "video. Paths begin at its folder.",
            show_default=False,
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Videos at a time (default: one a core)."),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Render on a Ray cluster, HOST:PORT or auto, in place of this machine.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", "-f", help="Replace videos that no earlier run has made."),
    ] = False,
    preset: Annotated[
        Preset, typer.Option(help="Video: slower makes smaller files.")
    ] = Preset.VERYFAST,
    crf: Annotated[
        int, typer.Option(min=0, max=51, help="Video: quality, smaller is better.")
    ] = 18,
    precision: Annotated[Precision, typer.Option(help="As of lipwire render.")] = Precision.AUTO,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="The file that says what is finished (default: the table's name with .done).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make many videos, each once.

    lipwire render-many jobs.csv

    Whatever ends it, what is finished stays, and the same command goes on with the rest. A job that
    fails is told of at the end, and tried again by the next run.
    """
    from lipwire.cli.terminal import progress_bar
    from lipwire.config import usable_cores
    from lipwire.rendermany import (
        Ledger,
        LocalWorkers,
        RenderSettings,
        read_jobs,
        render_many,
    )

    settings = RenderSettings(preset.value, crf, precision.value)
    wanted = read_jobs(jobs)

    def open_workers(count: int) -> Workers:
        if ray is None:
            return LocalWorkers(min(count, workers or usable_cores()), settings)
        from lipwire.rendermany.cluster import RayWorkers

        return RayWorkers(ray, settings, count=workers)

    with (
        Ledger(ledger or jobs.with_name(f"{jobs.name}.done")) as kept,
        progress_bar("rendering", "videos") as told,
    ):
        summary = render_many(wanted, settings, kept, open_workers, replace=force, told=told)
    _say(summary)
    if summary.failed:
        raise typer.Exit(1)


def _say(summary: RunSummary) -> None:
    from lipwire.cli.terminal import duration

    for what, each in (("warning", summary.warnings), ("failed", summary.failed)):
        for failure in each[:_NAMED]:
            typer.echo(
                f"{what}: line {failure.job.line}, {failure.job.out}: {failure.reason}", err=True
            )
        if len(each) > _NAMED:
            typer.echo(f"{what}: {len(each) - _NAMED} more", err=True)
    before = f", {summary.before} were finished before" if summary.before else ""
    lost = f"; {summary.workers_lost} workers were lost" if summary.workers_lost else ""
    typer.echo(
        f"{summary.done} videos rendered, {duration(summary.video_s)} in all{before};"
        f" {len(summary.failed)} failed{lost}"
    )
