"""`lipwire top`: running servers, their live sessions and avatars, as they change."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lipwire.cli.connecting import (
    DEFAULT_ADDRESS,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Token,
    UseProxy,
    security_of,
)
from lipwire.cli.exits import EXIT_FAILED

if TYPE_CHECKING:
    from lipwire.cli.top.watch import Watch

_EVERY_S: Final = 1.0
_PIPE_COLUMNS: Final = 160
"""Characters of a line where there is no terminal that says how many it has."""


def command(
    servers: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Servers of either kind, host:port (default: {DEFAULT_ADDRESS}).",
            show_default=False,
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Print how things are now, and end.")
    ] = False,
    avatars: Annotated[
        int, typer.Option(min=0, help="The most avatars that are shown, the busiest first.")
    ] = 20,
    timeout: Timeout = 5.0,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Show running servers, their live sessions and avatars, anew each second; q ends.

    Where standard output is no terminal, it is printed once. Then, and with --once, the exit code
    is 1 where a server does not answer.

    lipwire top localhost:50052 gpu1:50051
    """
    import os
    import sys

    from lipwire.cli.top.watch import Watch
    from lipwire.rpc.serverstatus import StatusConnection

    security = security_of(token, tls_ca, tls_cert, tls_key)
    once = once or not sys.stdout.isatty()
    with ExitStack() as stack:
        connections = [
            stack.enter_context(StatusConnection(each, use_proxy=use_proxy, security=security))
            for each in dict.fromkeys(servers or [DEFAULT_ADDRESS])
        ]
        every_s = None if once else _EVERY_S
        watch = stack.enter_context(Watch(connections, timeout_s=timeout, every_s=every_s))
        if not once:
            _show(watch, avatars)
            return
        from rich.console import Console

        from lipwire.cli.top.tables import tables

        watch.wait()
        seen = watch.seen()
        in_pipe = not sys.stdout.isatty() and "COLUMNS" not in os.environ
        console = Console(width=_PIPE_COLUMNS if in_pipe else None)
        console.print(tables(seen, avatars, console.width))
        if any(each.status is None for each in seen):
            raise typer.Exit(EXIT_FAILED)


def _show(watch: Watch, avatars: int) -> None:
    """Show it until q is pressed, or Ctrl-C."""
    from contextlib import suppress

    from rich.console import Console, Group
    from rich.live import Live

    from lipwire.cli.top.keyboard import keyboard
    from lipwire.cli.top.tables import tables

    console = Console()

    def now() -> Group:
        return tables(watch.seen(), avatars, console.width)

    with (
        suppress(KeyboardInterrupt),
        keyboard() as keys,
        Live(now(), console=console, screen=True, auto_refresh=False) as live,
    ):
        while not keys.pressed("qQ", _EVERY_S):
            live.update(now(), refresh=True)
