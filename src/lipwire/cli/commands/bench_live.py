"""What `lipwire bench live` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lipwire.bench.live import Figure, LiveReport


def measure_live(seconds: float, quick: bool, as_json: bool) -> None:
    """Measure live sessions, ``seconds`` of speech for each figure, and print what was found, as
    JSON where ``as_json``. ``quick`` only checks that everything runs, with a tiny network."""
    from lipwire.bench.live import run_live
    from lipwire.config import describe_machine

    reports = run_live(seconds, quick=quick, tell=_tell)
    if as_json:
        import json
        from dataclasses import asdict

        document = {
            "machine": describe_machine().as_json(),
            "live": [asdict(report) for report in reports],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for report in reports:
        _print(report)
    typer.echo(describe_machine().line())


def _tell(runner: str, figure: Figure) -> None:
    typer.echo(f"{runner}: {figure.what} {_ms(figure.p50_ms)} {figure.note}".rstrip(), err=True)


def _print(report: LiveReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"live sessions, networks on the {report.runner}", title_justify="left")
    table.add_column("what")
    table.add_column("p50", justify="right")
    table.add_column("p99", justify="right")
    table.add_column("besides")
    for figure in report.figures:
        table.add_row(figure.what, _ms(figure.p50_ms), _ms(figure.p99_ms), figure.note)
    Console().print(table)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} ms"
