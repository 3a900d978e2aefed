"""What `lipwire plan` prints."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from lipwire.planning.scenario import Outcome
    from lipwire.planning.study import Study


def print_study(study: Study) -> None:
    """Print ``study`` to standard output: the plan, the figures it was computed from, and the
    results of simulations."""
    console = Console()
    _print_plan(console, study)
    _print_needs(console, study)
    _print_figures(console, study)
    if study.tried:
        _print_tried(console, study)
    if study.surges:
        _print_surges(console, study)


def study_as_json(study: Study) -> str:
    """Return ``study`` as a JSON document. Of simulations it has the totals only, not each
    simulated request."""
    document = {
        "demand": asdict(study.demand),
        "figures": {name: asdict(figure) for name, figure in study.figures.items()},
        "machine_gpus": study.machine_gpus,
        "plan": asdict(study.plan),
        "guide": asdict(study.guide) | {"gpus": study.guide.gpus},
        "seed": study.seed,
        "simulated": [{"machines": machines} | _sums(outcome) for machines, outcome in study.tried],
        "surges": [asdict(surge) for surge in study.surges],
    }
    return json.dumps(document, indent=2)


def _sums(outcome: Outcome) -> dict[str, float]:
    return {
        "servers": outcome.servers,
        "seconds": outcome.seconds,
        "sessions": outcome.sessions,
        "refused": outcome.refused,
        "refused_memory": outcome.refused_memory,
        "refused_share": outcome.refused_share,
        "talking": outcome.talking,
        "utilisation": outcome.utilisation,
        "hit_rate": outcome.hit_rate,
        "evictions": outcome.evictions,
        "events": outcome.events,
    }


def _print_plan(console: Console, study: Study) -> None:
    demand, plan, guide = study.demand, study.plan, study.guide
    title = (
        f"{demand.users:,} users, {demand.avatars:,} avatars, {demand.talking:g} talk at once,"
        f" {demand.fps:g} fps"
    )
    table = Table(title=title, title_justify="left")
    for column in ("", "Lipwire", "the guide"):
        table.add_column(column, justify="left" if not column else "right")
    first = plan.needs[0]
    for what, ours, theirs in (
        ("machines", f"{plan.machines}", ""),
        (
            "GPUs",
            f"{plan.gpus}",
            f"{guide.gpus} ({guide.gpus_for_memory} for memory, {guide.gpus_for_speed} for speed)",
        ),
        ("live sessions a server", f"{plan.places}", ""),
        ("expected to be refused", f"{100 * plan.refused:.2f} %", ""),
        (
            "memory for avatars",
            f"{plan.memory_gb:,.1f} GB ({plan.resident:,} held)",
            f"{guide.memory_gb:,.1f} GB, or {guide.cached_memory_gb:,.1f} with a cache",
        ),
        ("memory of GPUs", f"{plan.gpu_memory_gb:,.1f} GB", ""),
        ("disk for all avatars, once", f"{plan.disk_gb:,.1f} GB", ""),
        ("to clients", f"{plan.bandwidth_gbit:,.2f} Gbit/s", ""),
        ("between servers, if apart", f"{plan.inside_gbit:,.2f} Gbit/s", ""),
    ):
        table.add_row(what, ours, theirs)
    console.print(table)
    typer.echo(f"What decides is {first.what}: {first.how}.")
    per_machine = study.figures["disk_gb"].value
    if plan.disk_gb > per_machine:
        typer.echo(
            f"All avatars do not fit on a machine's disk of {per_machine:,.0f} GB: they need a"
            " volume that machines share."
        )
    if plan.hot:
        typer.echo(
            "The most popular avatars have more sessions than a server holds: more servers do not"
            " help, and speed is planned as if any could take any."
        )
    elif plan.pooled_machines < plan.machines:
        typer.echo(
            f"If any server could take any session, {plan.pooled_machines} would do for speed: an"
            " avatar's sessions go to one server, and servers are not loaded alike."
        )


def _print_needs(console: Console, study: Study) -> None:
    table = Table(title="what needs how many machines, by itself", title_justify="left")
    table.add_column("")
    table.add_column("machines", justify="right")
    table.add_column("")
    for need in study.plan.needs:
        table.add_row(need.what, f"{need.machines}", need.how)
    console.print(table)


def _print_figures(console: Console, study: Study) -> None:
    table = Table(title="computed from", title_justify="left")
    for column in ("figure", "", "is", "where from"):
        table.add_column(column, justify="right" if not column else "left")
    for name, figure in study.figures.items():
        table.add_row(name, f"{figure.value:,.4g} {figure.unit}".strip(), figure.kind, figure.why)
    console.print(table)


def _print_tried(console: Console, study: Study) -> None:
    table = Table(title=f"simulated, seed {study.seed}", title_justify="left")
    for column in ("machines", "sessions", "refused", "talk at once", "busy", "found in memory"):
        table.add_column(column, justify="right")
    for machines, outcome in study.tried:
        table.add_row(
            f"{machines}",
            f"{outcome.sessions:,}",
            f"{100 * outcome.refused_share:.2f} %",
            f"{outcome.talking:.1f}",
            f"{100 * outcome.utilisation:.0f} %",
            f"{100 * outcome.hit_rate:.0f} %",
        )
    console.print(table)


def _print_surges(console: Console, study: Study) -> None:
    factor = study.surges[0].factor
    table = Table(title=f"{factor:g} times as many people at once", title_justify="left")
    for column in ("scaling", "came in half an hour", "refused", "servers", "over after"):
        table.add_column(column, justify="left" if column == "scaling" else "right")
    for surge in study.surges:
        table.add_row(
            surge.scaling,
            f"{surge.came:,}",
            f"{surge.refused:,} ({100 * surge.refused / max(1, surge.came):.1f} %)",
            f"{surge.servers_before} to {surge.servers}",
            "not over" if surge.over_s is None else f"{surge.over_s / 60:.1f} min",
        )
    console.print(table)
    if study.tried and any(surge.servers == surge.servers_before for surge in study.surges):
        busy = 100 * study.tried[0][1].utilisation
        typer.echo(
            f"Before the surge servers are busy for {busy:.0f} % of their time in the mean. A"
            f" scaler that aims at more than {factor:g} times that adds nothing (--target)."
        )
