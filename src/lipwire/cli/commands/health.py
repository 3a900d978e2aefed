"""`lipwire health`: whether a server answers, for scripts, containers and service managers."""

from dataclasses import replace
from typing import Annotated

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


def command(
    address: Annotated[
        str, typer.Argument(help="Either server, host:port or unix:PATH.")
    ] = DEFAULT_ADDRESS,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Only whether the process works, also while it cannot serve: where it drains, or "
            "waits for an inference server.",
        ),
    ] = False,
    timeout: Timeout = 5.0,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    tls_name: Annotated[
        str | None,
        typer.Option(
            "--tls-name",
            help="The name in the server's certificate, where it is asked under another.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Ask a server how it is: exit code 0 where it serves, 1 where it does not.

    It needs no key. The certificate alone is checked as by any client.

    lipwire health localhost:50052 --tls-ca ca.crt --tls-name lipwire.example.org
    """
    from lipwire.domain import InvalidInput
    from lipwire.rpc.healthcheck import check_serving
    from lipwire.rpc.server.health import LIVENESS

    security = security_of(token, tls_ca, tls_cert, tls_key)
    if tls_name is not None:
        if security.tls is None:
            raise InvalidInput("--tls-name is for a connection by TLS; give --tls-ca, too")
        security = replace(security, tls=replace(security.tls, server_name=tls_name))
    check_serving(
        address,
        service=LIVENESS if live else "",
        timeout_s=timeout,
        use_proxy=use_proxy,
        security=security,
    )
    typer.echo("live" if live else "serving")
