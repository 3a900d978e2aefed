"""`lipwire doctor`: whether a machine, its configurations and its servers are fit for service."""

from pathlib import Path
from typing import Annotated

import typer

from lipwire.cli.connecting import Timeout, TlsCa, TlsCert, TlsKey, Token, security_of
from lipwire.cli.exits import EXIT_FAILED


def command(
    configs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Configuration files of servers (default: config.yaml here, where there is one).",
            show_default=False,
        ),
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="A running server, host:port, to look at as well; may be given several times.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out how fast frames are made here.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    timeout: Timeout = 5.0,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Look at all that servers need here, before they are relied on.

    Nothing is changed; only the demo avatar is compiled where it never was. Exits with 1 where
    there is a fault.

    lipwire doctor inference.yaml compositing.yaml --server localhost:50052
    """
    from lipwire.cli.doctor.checks import Outcome, count
    from lipwire.cli.doctor.examination import examine
    from lipwire.cli.doctor.report import as_json as document_of
    from lipwire.cli.doctor.report import print_tables
    from lipwire.cli.servers.process import config_path

    security = security_of(token, tls_ca, tls_cert, tls_key)
    paths = [*configs] if configs else [config_path(None)]
    groups = examine(paths, server or (), security, with_speed=not quick, timeout_s=timeout)
    if as_json:
        typer.echo(document_of(groups))
    else:
        print_tables(groups)
    if count(groups, Outcome.FAULT):
        raise typer.Exit(EXIT_FAILED)
