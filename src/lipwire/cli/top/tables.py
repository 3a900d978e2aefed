"""The tables of ``lipwire top``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lipwire.cli.terminal import duration, file_size
from lipwire.domain.wording import escaped

if TYPE_CHECKING:
    from lipwire.cli.top.watch import Seen
    from lipwire.rpc.serverstatus import GpuUse, ModelUse, ServerStatus


WIDE_COLUMNS: Final = 110
"""From this width on, all of a server's numbers have room in its row."""


def tables(servers: Sequence[Seen], avatars: int, columns: int) -> Group:
    """Return tables of ``servers`` to print with rich: a row for each server, a row for each of
    their GPUs, and a row for each of the ``avatars`` avatars in memory that are used most.
    ``columns`` is the terminal's width in characters: in a narrow one, rows of servers have fewer
    numbers."""
    shown = [_servers(servers, wide=columns >= WIDE_COLUMNS)]
    gpus = [
        (seen.address, gpu)
        for seen in servers
        if seen.status is not None
        for gpu in seen.status.gpus
    ]
    if gpus:
        shown.append(_gpus(gpus))
    shown.append(_avatars(servers, avatars))
    return Group(*shown)


def _table(*columns: str, left: int, gap: int = 2) -> Table:
    """A table of ``columns``, the first ``left`` of which are texts, with ``gap`` blanks
    between."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="left" if number < left else "right", no_wrap=number >= left
        )
    return table


def _servers(servers: Sequence[Seen], *, wide: bool) -> Table:
    names = ("server", "kind", "health", "avatars", "memory", "live", "uses/s", "hits")
    more = ("processes", "known", "version") if wide else ()
    table = _table(*names, *more, left=3, gap=2 if wide else 1)
    for column in table.columns[:2]:
        column.no_wrap = True
    for seen in servers:
        status = seen.status
        if status is None:
            told = Text(escaped(seen.error), "red") if seen.error else Text("is asked")
            table.add_row(Text(escaped(seen.address)), "", told)
            continue
        about = [str(status.workers), str(status.known), Text(escaped(status.version))]
        table.add_row(
            Text(escaped(seen.address)),
            status.kind.removesuffix(" server"),
            _health(status),
            f"{status.loaded}/{status.max_models}",
            file_size(status.memory_bytes),
            f"{status.live_sessions}/{status.live_capacity or '?'}",
            f"{seen.rate:.1f}",
            _hits(status),
            *(about if wide else ()),
        )
    return table


def _health(status: ServerStatus) -> Text:
    if not status.healthy:
        return Text(escaped(status.detail) or "not healthy", "red")
    return Text(escaped(status.detail), "yellow") if status.detail else Text("healthy", "green")


def _hits(status: ServerStatus) -> str:
    if status.hits is None or status.misses is None:
        return ""
    asked = status.hits + status.misses
    return f"{status.hits / asked:.1%}" if asked else ""


def _gpus(gpus: Sequence[tuple[str, GpuUse]]) -> Table:
    table = _table("server", "GPU", "state", "at work", "memory", "networks", left=3)
    for address, gpu in gpus:
        table.add_row(
            Text(escaped(address)),
            Text(f"{gpu.index}: {escaped(gpu.name)}"),
            Text(escaped(gpu.lost), "red") if gpu.lost else Text("at work", "green"),
            f"{gpu.utilisation:.0%}",
            f"{file_size(gpu.used_bytes)}/{file_size(gpu.memory_bytes)}",
            str(gpu.loaded_models),
        )
    return table


def _avatars(servers: Sequence[Seen], most: int) -> Table:
    rows: list[tuple[Seen, ModelUse]] = [
        (seen, model) for seen in servers if seen.status is not None for model in seen.status.models
    ]

    def busiest(row: tuple[Seen, ModelUse]) -> tuple[float, ...]:
        seen, model = row
        return (-model.in_use, -seen.rates.get(model.name, 0.0), -model.uses, model.idle_s)

    table = _table("server", "avatar", "memory", "uses", "uses/s", "now", "idle", left=2)
    for seen, model in sorted(rows, key=busiest)[:most]:
        table.add_row(
            Text(escaped(seen.address)),
            Text(escaped(model.name)),
            file_size(model.memory_bytes),
            str(model.uses),
            f"{seen.rates.get(model.name, 0.0):.1f}",
            str(model.in_use),
            duration(model.idle_s),
        )
    if len(rows) > most:
        table.add_row("", f"and {len(rows) - most} more")
    return table
