"""`lipwire certs dev`: certificates to try TLS with."""

from pathlib import Path
from typing import Annotated

import typer


def dev(
    folder: Annotated[
        Path, typer.Argument(help="Where the files are written.", show_default=False)
    ],
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name or an address that the server is reached by; may be given several times "
            "(default: localhost, 127.0.0.1, ::1).",
            show_default=False,
        ),
    ] = None,
    client: Annotated[str, typer.Option(help="The name in the client's certificate.")] = "client",
) -> None:
    """Make an authority of your own, a certificate for a server and one for a client.

    For a laptop or a private network; a server on the internet needs one that browsers trust.

    lipwire certs dev certs --host lipwire.example.org
    """
    from datetime import UTC, datetime

    from lipwire.security.devcerts import make_certificates

    hosts = host or ["localhost", "127.0.0.1", "::1"]
    for path in make_certificates(folder, hosts, client=client, now=datetime.now(UTC)):
        typer.echo(str(path))
    typer.echo(
        f"server.tls: {{cert: {folder}/server.crt, key: {folder}/server.key}}; clients:"
        f" --tls-ca {folder}/ca.crt",
        err=True,
    )
