"""`lipwire models list|load|unload|stats`: the avatars of a running server."""

import json
from typing import Annotated

import typer

from lipwire.cli.client import DEFAULT_ADDRESS, Address, Timeout

Model = Annotated[str, typer.Argument(help="An avatar's name on the server.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def list_models(
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30.0,
    loaded: Annotated[bool, typer.Option("--loaded", help="Only those in memory.")] = False,
    as_json: AsJson = False,
) -> None:
    """The avatars that the server has, and which of them are in memory."""
    from lipwire.cli.terminal import plain
    from lipwire.rpc.connection import CompositingConnection

    with CompositingConnection(address) as connection:
        models = [m for m in connection.models(timeout) if m.loaded or not loaded]
    if as_json:
        rows = [{"model_id": model.model_id, "loaded": model.loaded} for model in models]
        typer.echo(json.dumps(rows, indent=2))
        return
    for model in models:
        typer.echo(plain(model.model_id) + ("  (loaded)" if model.loaded else ""))


def load(model: Model, address: Address = DEFAULT_ADDRESS, timeout: Timeout = 300.0) -> None:
    """Have an avatar ready on both servers before it is asked for."""
    from lipwire.rpc.connection import CompositingConnection

    with CompositingConnection(address) as connection:
        took_ms = connection.load(model, timeout)
    typer.echo(f"{model}: loaded in {took_ms:.0f} ms")


def unload(model: Model, address: Address = DEFAULT_ADDRESS, timeout: Timeout = 60.0) -> None:
    """Let go of an avatar on both servers; requests that use it finish first."""
    from lipwire.rpc.connection import CompositingConnection

    with CompositingConnection(address) as connection:
        unloaded = connection.unload(model, timeout)
    typer.echo(f"{model}: {'unloaded' if unloaded else 'was not loaded'}")


def stats(
    model: Annotated[
        str, typer.Argument(help="One avatar (default: all in memory).", show_default=False)
    ] = "",
    address: Address = DEFAULT_ADDRESS,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """What the server holds in memory, and how it was used."""
    from lipwire.cli.terminal import file_size, plain
    from lipwire.rpc.connection import CompositingConnection

    with CompositingConnection(address) as connection:
        found = connection.stats(model, timeout)
    if as_json:
        from google.protobuf.json_format import MessageToDict

        document = MessageToDict(
            found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(
        f"{found.loaded_models} of at most {found.max_models} avatars loaded,"
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
            f"{plain(each.model_id)}: {file_size(each.memory_bytes)}, {each.uses} uses,"
            f" {each.in_use} now, idle for {each.idle_s:.0f} s"
        )
