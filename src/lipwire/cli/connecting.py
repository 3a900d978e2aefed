"""Options of commands that ask a running server: where it is, and how they show who asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from lipwire.rpc.credentials import ClientSecurity

DEFAULT_ADDRESS: Final = "localhost:50052"

Address = Annotated[str, typer.Option("--address", "-a", help="The compositing server, host:port.")]
Timeout = Annotated[float, typer.Option(min=0.001, help="Seconds to wait for an answer.")]
UseProxy = Annotated[
    bool,
    typer.Option("--use-proxy", help="Let grpc_proxy, https_proxy, http_proxy and no_proxy count."),
]
Token = Annotated[
    str,
    typer.Option(
        "--token",
        envvar="LIPWIRE_TOKEN",
        help="An API key or a token that the server asks for.",
        show_default=False,
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        help="Connect by TLS; certificates, PEM, by which the server is checked (system: those "
        "that come with gRPC).",
        show_default=False,
    ),
]
TlsCert = Annotated[
    Path | None,
    typer.Option(
        "--tls-cert",
        help="A certificate to show the server, PEM; with --tls-key.",
        show_default=False,
    ),
]
TlsKey = Annotated[
    Path | None, typer.Option("--tls-key", help="Its private key, PEM.", show_default=False)
]


def security_of(
    token: str, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None
) -> ClientSecurity:
    """Return how a command connects to a server. ``token`` is an API key or a token (empty: none).
    ``tls_ca``, ``tls_cert`` and ``tls_key`` are PEM files: the authority that signed the server's
    certificate, the client's own certificate, and its key (None: not given). ``tls_ca`` may be
    "system", for the certificates that come with gRPC. Without ``tls_ca`` and ``tls_cert`` the
    connection is not encrypted. Raises InvalidInput where only one of ``tls_cert`` and ``tls_key``
    is given."""
    from lipwire.domain import InvalidInput
    from lipwire.rpc.credentials import ClientSecurity, ClientTls

    if (tls_cert is None) != (tls_key is None):
        raise InvalidInput("--tls-cert and --tls-key belong together; give both or neither")
    if tls_ca is None and tls_cert is None:
        return ClientSecurity(token=token)
    ca = None if tls_ca is None or str(tls_ca) == "system" else tls_ca
    return ClientSecurity(ClientTls(ca, tls_cert, tls_key), token)
