"""`lipwire bench`."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lipwire.bench import Comparison


class Subject(StrEnum):
    """What can be measured: the modules of `lipwire.bench`, and all of them in turn."""

    COMPOSE = "compose"
    ENGINE = "engine"
    AUDIO = "audio"
    COLDSTART = "coldstart"
    ALL = "all"


ROUNDS = {
    Subject.COMPOSE: 60,
    Subject.ENGINE: 30,
    Subject.AUDIO: 15,
    Subject.COLDSTART: 7,
}
"""Enough for a steady median, in about a minute each on two cores."""

QUICK_ROUNDS = 3


def command(
    subject: Annotated[
        Subject,
        typer.Argument(
            help="compose: partial JPEG against a full encode. engine: the shared graph against a "
            "plain ONNX Runtime session. audio: streaming features against offline. coldstart: a "
            "mapped avatar to its first frame against decoding and a new session."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few rounds only: does it run, not how fast.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds to measure (default: by subject).")
    ] = None,
) -> None:
    """Measure Lipwire's ways against the plain ways, in turns and in one process."""
    from lipwire.config import describe_machine

    subjects = list(ROUNDS) if subject is Subject.ALL else [subject]
    results = {
        each: _run(each, rounds or (QUICK_ROUNDS if quick else ROUNDS[each])) for each in subjects
    }
    machine = describe_machine()
    if as_json:
        import json
        from dataclasses import asdict

        document = {
            "machine": machine.as_json(),
            "comparisons": [
                {"subject": each.value, **asdict(comparison)}
                for each, comparisons in results.items()
                for comparison in comparisons
            ],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    for each, comparisons in results.items():
        _print_table(each, comparisons)
    typer.echo(machine.line())


def _run(subject: Subject, rounds: int) -> "list[Comparison]":
    from importlib import import_module

    comparisons: list[Comparison] = import_module(f"lipwire.bench.{subject.value}").run(
        rounds=rounds
    )
    return comparisons


def _print_table(subject: Subject, comparisons: "list[Comparison]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"bench {subject.value}", title_justify="left")
    table.add_column("what")
    table.add_column("way")
    table.add_column("median", justify="right")
    table.add_column("p99", justify="right")
    table.add_column("ratio", justify="right")
    for c in comparisons:
        table.add_row(
            c.name, c.label_a, _ms(c.median_a_ms), _ms(c.p99_a_ms), f"{c.ratio:.2f}x", style="bold"
        )
        table.add_row(c.notes, c.label_b, _ms(c.median_b_ms), _ms(c.p99_b_ms), "1", style="dim")
        table.add_section()
    Console().print(table)


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"
