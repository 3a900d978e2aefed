"""What `lipwire bench live` and `lipwire bench density` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lipwire.bench.live import Density, Figure, LiveReport


def measure_live(seconds: float, quick: bool, as_json: bool) -> None:
    """Measure live sessions, ``seconds`` of speech for each figure, and print what was found as a
    table, or as JSON where ``as_json``. Each figure is also printed to stderr as it is found.
    ``quick`` only checks that everything runs, with a tiny network."""
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


def measure_density(seconds: float, quick: bool, as_json: bool) -> None:
    """Measure what live sessions cost, ``seconds`` for each figure, and print how many sessions
    this machine and one with more cores can hold: as tables, or as JSON where ``as_json``.
    ``quick`` only checks that everything runs, with a tiny network."""
    from lipwire.bench.live import LARGE_CORES, run_density
    from lipwire.config import describe_machine

    found = run_density(seconds, quick=quick, tell=lambda line: typer.echo(line, err=True))
    if as_json:
        import json
        from dataclasses import asdict

        document = {
            "machine": describe_machine().as_json(),
            "density": [
                asdict(each)
                | {
                    "session_share": each.session_share,
                    "sessions": each.sessions(each.cores),
                    f"sessions_{LARGE_CORES}_cores": each.sessions(LARGE_CORES),
                }
                for each in found
            ],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for each in found:
        _print_density(each, LARGE_CORES)
    typer.echo(describe_machine().line())


def _print_density(found: Density, large_cores: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"live sessions that speak, {found.runner}", title_justify="left")
    table.add_column("what")
    table.add_column("", justify="right")
    for what, figure in (
        ("a mouth, on one core alone", f"{found.mouth_ms:.1f} ms"),
        (f"mouths a second, {found.cores} cores", f"{found.mouths_a_second:.1f}"),
        ("mouths a second and core", f"{found.mouths_a_second / found.cores:.1f}"),
        ("a session besides its mouths", f"{100 * found.besides_share:.1f} % of a core"),
        ("a session in all", f"{found.session_share:.2f} cores"),
        ("sessions of this machine, computed", f"{found.sessions(found.cores)}"),
        ("sessions of this machine, held", f"{found.held}"),
        ("sessions that leases allow", f"{found.allowed}"),
        (f"sessions of {large_cores} such cores, computed", f"{found.sessions(large_cores)}"),
    ):
        table.add_row(what, figure)
    Console().print(table)
    typer.echo(f"held: {found.held_until}")


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
