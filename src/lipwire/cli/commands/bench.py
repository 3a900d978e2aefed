"""`lipwire bench`."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lipwire.bench import Comparison
    from lipwire.bench.gpu import Part
    from lipwire.bench.serve import Besides, Load


class Subject(StrEnum):
    """What can be measured, by the names of modules of `lipwire.bench`; ``all`` is most of them in
    turn."""

    COMPOSE = "compose"
    ENGINE = "engine"
    AUDIO = "audio"
    COLDSTART = "coldstart"
    SERVE = "serve"
    CAPACITY = "capacity"
    GPU = "gpu"
    LIVE = "live"
    DENSITY = "density"
    CHAOS = "chaos"
    ALL = "all"


ROUNDS = {
    Subject.COMPOSE: 60,
    Subject.ENGINE: 30,
    Subject.AUDIO: 15,
    Subject.COLDSTART: 7,
    Subject.SERVE: 7,
}
"""Enough for a steady median, in about a minute each on two cores."""

QUICK_ROUNDS = 3
QUICK_SECONDS = 5.0


def command(
    subject: Annotated[
        Subject,
        typer.Argument(
            help="compose: partial JPEG against a full encode. engine: the shared graph against a "
            "plain ONNX Runtime session. audio: streaming features against offline. coldstart: "
            "a mapped avatar to its first frame against decoding and a new session. serve: a "
            "server under 1 to 8 clients, and requests that carry pixels, 59 MB each, against a "
            "bare gRPC echo. capacity: 11,000 avatars behind one server. gpu: speed, swaps, "
            "memory and live sessions on an NVIDIA GPU. live: live sessions from speech to "
            "frame, and how many a machine carries. density: what a live session costs, and how "
            "many this machine and a larger one hold. chaos: servers that are killed and whose "
            "avatars change, under clients that look at every frame. The last five are not part "
            "of all."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few rounds only: does it run, not how fast.")
    ] = False,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Rounds to measure (default: by subject).")
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="How long capacity asks (default: 60), gpu may take (default: 480), or each "
            "figure of live and density takes (default: 10).",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="gpu: write what was found as JSON, after every part."),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="How long chaos lasts.")] = 2.0,
    seed: Annotated[int, typer.Option(help="What happens in chaos, and when.")] = 0,
    rate: Annotated[
        float, typer.Option(min=0, help="Requests a second in chaos; 0: as many as there can be.")
    ] = 0.0,
    store: Annotated[
        str | None,
        typer.Option(
            help="capacity: the URL of a store to put the avatars into; the server has a cache for"
            " 500 of them.",
            show_default=False,
        ),
    ] = None,
    replace_packages: Annotated[
        bool, typer.Option("--replace-packages", help="In chaos avatars change on disk as well.")
    ] = False,
) -> None:
    """Measure how fast Lipwire is, against the plain way to do the same, in turns and in one
    process."""
    from lipwire.config import describe_machine

    if subject is Subject.CHAOS:
        from lipwire.bench.chaos import Plan
        from lipwire.cli.commands.bench_chaos import measure_chaos

        plan = Plan(
            minutes=QUICK_SECONDS / 60 if quick else minutes,
            seed=seed,
            rate=rate,
            replace_packages=replace_packages,
        )
        measure_chaos(plan, as_json)
        return
    if subject in (Subject.LIVE, Subject.DENSITY):
        from lipwire.cli.commands import bench_live

        measure = {
            Subject.LIVE: bench_live.measure_live,
            Subject.DENSITY: bench_live.measure_density,
        }
        measure[subject](seconds or (2.0 if quick else 10.0), quick, as_json)
        return
    if subject is Subject.CAPACITY:
        _measure_capacity(QUICK_SECONDS if quick else seconds or 60.0, as_json, store)
        return
    if subject is Subject.GPU:
        _measure_gpu(seconds or 480.0, quick, as_json, out)
        return
    subjects = list(ROUNDS) if subject is Subject.ALL else [subject]
    results = {
        each: _run(each, rounds or (QUICK_ROUNDS if quick else ROUNDS[each])) for each in subjects
    }
    served = _measure_serving(quick) if Subject.SERVE in results else None
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
        if served is not None:
            document["serve"] = {"loads": [asdict(load) for load in served[0]]} | asdict(served[1])
        typer.echo(json.dumps(document, indent=2))
        return
    for each, comparisons in results.items():
        _print_table(each, comparisons)
    if served is not None:
        _print_serving(*served)
    typer.echo(machine.line())


def _run(subject: Subject, rounds: int) -> "list[Comparison]":
    from importlib import import_module

    comparisons: list[Comparison] = import_module(f"lipwire.bench.{subject.value}").run(
        rounds=rounds
    )
    return comparisons


def _measure_capacity(seconds: float, as_json: bool, store: str | None) -> None:
    import os

    from lipwire.bench.capacity import run_capacity
    from lipwire.cli.terminal import file_size
    from lipwire.config import describe_machine

    endpoint_url = os.environ.get("LIPWIRE_STORE__ENDPOINT_URL")
    found = run_capacity(seconds, store=store, endpoint_url=endpoint_url)
    if as_json:
        import json
        from dataclasses import asdict

        document = {"machine": describe_machine().as_json(), "capacity": asdict(found)}
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(
        f"{found.avatars} avatars, {found.requests} requests in {found.seconds:.0f} s,"
        f" {found.errors} errors {found.first_error}".rstrip()
    )
    typer.echo(
        f"{found.zipf_requests} of them for any avatar: hits {100 * found.hit_rate:.1f} %,"
        f" {found.evictions} evictions; avatars held at most {file_size(found.peak_bytes)} of"
        f" {file_size(found.budget_bytes)}, their networks {file_size(found.peak_network_bytes)},"
        f" the process {file_size(found.peak_resident_bytes)} with shared pages"
    )
    if store is not None:
        typer.echo(
            f"{found.stored} avatars in the store, the others published alone; the cache took at"
            f" most {file_size(found.peak_cache_bytes)} of {file_size(found.cache_bytes)}"
        )
    for name, spread in (
        ("cold", found.cold),
        ("warm, beside cold ones", found.warm),
        ("warm, beside warm ones", found.warm_alone),
    ):
        typer.echo(
            f"{name}: {spread.p50_ms:.1f} ms (p50), {spread.p99_ms:.1f} ms (p99) a frame besides"
            " its network"
        )
    for precision, spread in found.hot.items():
        typer.echo(
            f"used much, networks in {precision}: {spread.p50_ms:.1f} ms (p50),"
            f" {spread.p99_ms:.1f} ms (p99) a frame, the whole answer"
        )
    typer.echo(
        f"specialised networks took at most {file_size(found.peak_hot_bytes)} of"
        f" {file_size(found.hot_budget_bytes)}"
    )
    typer.echo(f"warm p99 beside cold ones: {found.slowed:.2f} times that beside warm ones")
    typer.echo(describe_machine().line())


def _measure_gpu(seconds: float, quick: bool, as_json: bool, out: Path | None) -> None:
    from lipwire.bench.gpu import run_gpu

    report = run_gpu(
        limit_s=seconds,
        quick=quick,
        out=out,
        tell=(lambda part: None) if as_json else _print_part,
    )
    if as_json:
        typer.echo(report.as_json())
    else:
        typer.echo(", ".join(f"{name} {fact}" for name, fact in report.machine.items()))


def _print_part(part: "Part") -> None:
    from rich.console import Console
    from rich.table import Table

    if part.rows:
        title = f"bench gpu, {part.name}: {part.title} ({part.seconds:.0f} s)"
        table = Table(title=title, title_justify="left")
        columns = list(dict.fromkeys(name for row in part.rows for name in row))
        for column in columns:
            table.add_column(column, justify="right")
        for row in part.rows:
            table.add_row(*(str(row.get(column, "")) for column in columns))
        Console().print(table)
    if part.problem:
        typer.echo(f"{part.name}: {part.problem}")


def _measure_serving(quick: bool) -> "tuple[list[Load], Besides]":
    from lipwire.bench import serve

    if quick:
        loads = serve.run_table(1, batches=(1, 4), clients=(1, 2), size=(640, 360), widths=None)
        return loads, serve.run_besides(2)
    return serve.run_table(), serve.run_besides()


def _print_serving(loads: "list[Load]", besides: "Besides") -> None:
    """The guide's table: milliseconds of a request, p50 and p99."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="lipwire serve, ms a request: p50 / p99", title_justify="left")
    for column in ("clients", "batch", "inference", "compositing", "overhead", "total"):
        table.add_column(column, justify="right")
    table.add_column("a frame", justify="right")
    table.add_column("fps", justify="right")
    clients = loads[0].clients
    for load in loads:
        if load.clients != clients:
            table.add_section()
            clients = load.clients
        spreads = (load.inference, load.compositing, load.overhead, load.total)
        table.add_row(
            str(load.clients),
            str(load.batch),
            *(f"{spread.p50_ms:.1f} / {spread.p99_ms:.1f}" for spread in spreads),
            f"{load.frame_ms:.2f}",
            f"{load.fps:.1f}",
        )
    Console().print(table)
    typer.echo(
        f"small form, client and server: {besides.besides_ms:.2f} ms of a core a frame besides the"
        f" network ({besides.frame_ms:.2f} less {besides.network_ms:.2f})"
    )


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
