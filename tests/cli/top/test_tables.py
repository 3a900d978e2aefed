from __future__ import annotations

import io
from dataclasses import replace

from rich.console import Console

from lipwire.cli.top.tables import tables
from lipwire.cli.top.watch import Seen
from lipwire.rpc.serverstatus import GpuUse, ModelUse, ServerStatus

STATUS = ServerStatus(
    address="a:1",
    kind="compositing server",
    version="1.2.3",
    healthy=True,
    detail="",
    workers=2,
    known=11_000,
    loaded=2,
    max_models=500,
    memory_bytes=2_500_000,
    live_sessions=3,
    live_capacity=8,
    models=(
        ModelUse("anna", 1_000_000, 50, 0, 12.0, 1),
        ModelUse("ben", 1_500_000, 7, 2, 0.0, 1),
    ),
    gpus=(),
    hits=99,
    misses=1,
    evictions=0,
    failures=0,
)


def printed(*servers: Seen, avatars: int = 20, columns: int = 160) -> list[list[str]]:
    """The words of each line."""
    stream = io.StringIO()
    Console(file=stream, width=columns).print(tables(servers, avatars, columns))
    return [line.split() for line in stream.getvalue().splitlines()]


def test_a_server_has_its_numbers_in_a_row() -> None:
    rows = printed(Seen("a:1", STATUS, rates={"anna": 1.5, "ben": 0.25}))
    row = "a:1 compositing healthy 2/500 2.5 MB 3/8 1.8 99.0% 2 11000 1.2.3"
    assert row.split() in rows


def test_in_a_narrow_terminal_nothing_is_cut() -> None:
    seen = Seen("127.0.0.1:50052", replace(STATUS, loaded=9_999, max_models=11_000))
    rows = printed(seen, columns=80)
    row = "127.0.0.1:50052 compositing healthy 9999/11000 2.5 MB 3/8 0.0 99.0%"
    assert row.split() in rows
    assert ["127.0.0.1:50052", "anna", "1.0", "MB", "50", "0.0", "0", "12.0", "s"] in rows


def test_the_busiest_avatars_come_first_and_the_others_are_counted() -> None:
    rows = printed(Seen("a:1", STATUS), avatars=1)
    assert ["a:1", "ben", "1.5", "MB", "7", "0.0", "2", "0.0", "s"] in rows
    assert ["and", "1", "more"] in rows
    assert not any("anna" in row for row in rows)


def test_what_is_wrong_is_said_in_place_of_numbers() -> None:
    rows = printed(
        Seen("a:1", error="connection refused"),
        Seen("b:1"),
        Seen("c:1", replace(STATUS, healthy=False, detail="no inference server answers")),
    )
    lines = [" ".join(row) for row in rows]
    assert "a:1 connection refused" in lines
    assert "b:1 is asked" in lines
    assert any(line.startswith("c:1 compositing no inference server answers") for line in lines)


def test_gpus_have_rows_of_their_own() -> None:
    gpu = GpuUse("H200", 0, 5, 24_000_000_000, 12_000_000_000, 0.83, "")
    lost = replace(gpu, index=1, lost="it has gone")
    lines = [" ".join(row) for row in printed(Seen("a:1", replace(STATUS, gpus=(gpu, lost))))]
    assert "a:1 0: H200 at work 83% 12.00 GB/24.00 GB 5" in lines
    assert any(line.startswith("a:1 1: H200 it has gone") for line in lines)


def test_what_a_server_sends_does_not_drive_the_terminal() -> None:
    status = replace(STATUS, detail="\x1b[2J", models=(ModelUse("[red]\x1b[31m", 1, 1, 0, 0, 1),))
    text = " ".join(word for row in printed(Seen("a:1", status)) for word in row)
    assert "\x1b" not in text
    assert "[red]\\x1b[31m" in text
