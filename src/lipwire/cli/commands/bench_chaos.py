"""What `lipwire bench chaos` prints, and its exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lipwire.bench.chaos import Chaos, Plan

_SHOWN = 20
"""Problems; of more there is the number."""


def measure_chaos(plan: Plan, as_json: bool) -> None:
    """Run ``plan``, which takes ``plan.minutes``, and print what was found as text, or as JSON
    where ``as_json``; progress is printed to stderr. Raises ``typer.Exit`` with code 1 where
    anything went wrong."""
    from lipwire.bench.chaos import run_chaos
    from lipwire.config import describe_machine

    found = run_chaos(plan, tell=lambda line: typer.echo(line, err=True))
    if as_json:
        import json
        from dataclasses import asdict

        document = {
            "machine": describe_machine().as_json(),
            "chaos": asdict(found) | {"hours": found.hours, "problems": found.problems},
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        _print(found)
        typer.echo(describe_machine().line())
    if found.problems:
        raise typer.Exit(1)


def _print(found: Chaos) -> None:
    typer.echo(
        f"{found.requests} requests in {found.seconds:.0f} s, as many as a session of"
        f" {found.hours:.2f} hours makes; {found.frames} frames looked at"
    )
    typer.echo(", ".join(f"{count} {what}" for what, count in sorted(found.counts.items())))
    for held in found.held:
        typer.echo(
            f"{held.server}: {held.resident_mb:.0f} MB resident at the end,"
            f" {held.proportional_mb:.0f} MB with shared pages divided"
        )
        for name, growth in held.growths.items():
            typer.echo(
                f"  {name}: {growth.first:.0f} after the warm-up, {growth.last:.0f} at the end;"
                f" {growth.slope:+.1f} in a thousand requests"
            )
        if not held.growths:
            typer.echo("  too short a run to see growth")
    for problem in found.problems[:_SHOWN]:
        typer.echo(problem)
    left = len(found.problems) - _SHOWN
    typer.echo(f"and {left} more" if left > 0 else f"{len(found.problems)} problems")
