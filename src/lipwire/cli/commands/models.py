"""`lipwire models list|load|unload|stats|erase`: the avatars of a running server."""

import json
from typing import Annotated

import typer

from lipwire.cli.connecting import (
    DEFAULT_ADDRESS,
    Address,
    Timeout,
    TlsCa,
    TlsCert,
    TlsKey,
    Token,
    UseProxy,
    security_of,
)

Model = Annotated[str, typer.Argument(help="An avatar's name on the server.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def list_models(
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30.0,
    loaded: Annotated[bool, typer.Option("--loaded", help="Only those in memory.")] = False,
    as_json: AsJson = False,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """List the avatars that a compositing server has, and which of them are in its memory."""
    from lipwire.domain.wording import escaped
    from lipwire.rpc.connection import CompositingConnection

    security = security_of(token, tls_ca, tls_cert, tls_key)
    with CompositingConnection(address, use_proxy=use_proxy, security=security) as connection:
        found = connection.listing(timeout)
    models = [model for model in found.models if model.loaded or not loaded]
    if as_json:
        rows = [
            {"model_id": model.model_id, "loaded": model.loaded, "loaded_in": model.loaded_in}
            for model in models
        ]
        typer.echo(json.dumps(rows, indent=2))
    else:
        for model in models:
            where = _in_some(model.loaded_in, found.workers)
            typer.echo(escaped(model.model_id) + (f"  (loaded{where})" if model.loaded else ""))
    _say_who_is_missing(found.detail)


def load(
    model: Model,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 300.0,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Load an avatar on a compositing server, and its network on the inference server, before
    anybody asks for it. Prints how long that took."""
    from lipwire.rpc.connection import CompositingConnection

    security = security_of(token, tls_ca, tls_cert, tls_key)
    with CompositingConnection(address, use_proxy=use_proxy, security=security) as connection:
        answer = connection.load(model, timeout)
    typer.echo(f"{model}: loaded in {answer.load_time_ms:.0f} ms")
    _say_who_is_missing(answer.detail)


def unload(
    model: Model,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 60.0,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Unload an avatar from a compositing server, and its network from the inference server.
    Requests that use it finish first."""
    from lipwire.rpc.connection import CompositingConnection

    security = security_of(token, tls_ca, tls_cert, tls_key)
    with CompositingConnection(address, use_proxy=use_proxy, security=security) as connection:
        answer = connection.unload(model, timeout)
    typer.echo(f"{model}: {'unloaded' if answer.unloaded else 'was not loaded'}")
    _say_who_is_missing(answer.detail)


def stats(
    model: Annotated[
        str, typer.Argument(help="One avatar (default: all in memory).", show_default=False)
    ] = "",
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Show which avatars a compositing server has in memory, how much they take, and how often they
    were used."""
    from lipwire.cli.terminal import file_size
    from lipwire.domain.wording import escaped
    from lipwire.rpc.connection import CompositingConnection

    security = security_of(token, tls_ca, tls_cert, tls_key)
    with CompositingConnection(address, use_proxy=use_proxy, security=security) as connection:
        found = connection.stats(model, timeout)
    _say_who_is_missing(found.detail)
    if as_json:
        from google.protobuf.json_format import MessageToDict

        document = MessageToDict(
            found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        for row in document["models"]:
            del row["gpu_id"]  # only inference servers fill it
        typer.echo(json.dumps(document, indent=2))
        return
    processes = "" if found.workers < 2 else f" in {found.workers} processes together"
    typer.echo(
        f"{found.loaded_models} of at most {found.max_models} avatars loaded{processes},"
        f" {file_size(found.memory_bytes)};"
        f" {found.hits} hits, {found.misses} misses, {found.evictions} evictions,"
        f" {found.failures} failures"
    )
    if found.HasField("loaded_networks"):
        typer.echo(
            f"{found.loaded_networks} networks loaded, {file_size(found.network_memory_bytes)}"
        )
    for each in found.models:
        typer.echo(
            f"{escaped(each.model_id)}: {file_size(each.memory_bytes)}"
            f"{_in_some(each.loaded_in, found.workers)}, {each.uses} uses,"
            f" {each.in_use} now, idle for {each.idle_s:.0f} s"
            f"{f', network in {each.precision}' if each.precision else ''}"
        )


def erase(
    model: Model,
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 60.0,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    use_proxy: UseProxy = False,
    token: Token = "",
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Forget a person: remove an avatar's package and all that was made of it on the server's
    machine.

    Live sessions that show it end within seconds. Inference servers with folders of their own,
    backups, and videos that were rendered are not known to the server.
    """
    from lipwire.cli.terminal import file_size
    from lipwire.domain.wording import escaped
    from lipwire.rpc.conversing import AvatarConnection

    security = security_of(token, tls_ca, tls_cert, tls_key)
    with AvatarConnection(address, use_proxy=use_proxy, security=security) as connection:
        for each in connection.erase(model, dry_run=True, timeout_s=timeout):
            typer.echo(f"{each.what}: {each.files} files, {file_size(each.size_bytes)}")
        if dry_run:
            return
        if not yes:
            typer.confirm("Remove all of this for good?", abort=True)
        connection.erase(model, timeout_s=timeout)
    typer.echo(f"{escaped(model)}: erased")


def _in_some(loaded_in: int, workers: int) -> str:
    """Where not all processes of a server hold an avatar."""
    return f" in {loaded_in} of {workers} processes" if loaded_in < workers else ""


def _say_who_is_missing(detail: str) -> None:
    """Processes of the server that are not in an answer; apart from it, for scripts."""
    from lipwire.domain.wording import escaped

    if detail:
        typer.echo(f"note: {escaped(detail)}", err=True)
