"""`lipwire up`."""

from pathlib import Path
from typing import Annotated

import typer

from lipwire.cli.servers.server_options import ModelsRoot


def command(
    avatar: Annotated[
        str | None,
        typer.Argument(help="The avatar that the test client lets speak.", show_default=False),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Argument(
            help="A recording of speech (default: the bundled sentence).", show_default=False
        ),
    ] = None,
    models_root: ModelsRoot = None,
    inference_config: Annotated[
        Path | None,
        typer.Option(help="YAML file of the inference server.", show_default=False),
    ] = None,
    compositing_config: Annotated[
        Path | None,
        typer.Option(help="YAML file of the compositing server.", show_default=False),
    ] = None,
    inference_port: Annotated[
        int, typer.Option(min=0, max=65535, help="0 for any free one.")
    ] = 50051,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the compositing server; 0 for any free one.")
    ] = 50052,
    batch: Annotated[int, typer.Option(min=1, max=50, help="Frames in a request.")] = 24,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder to save the frames to.", show_default=False),
    ] = None,
    test: Annotated[
        bool, typer.Option(help="Run the test client once the servers are ready.")
    ] = True,
    stay: Annotated[
        bool, typer.Option(help="Keep serving after the test client, until Ctrl-C.")
    ] = True,
) -> None:
    """Start both servers on this machine and let the test client speak through them.

    The servers are an inference server and a compositing server, which listen on 127.0.0.1 alone.
    Where no avatar is named it is demo, or the server's first one where it has no demo.
    """
    from contextlib import ExitStack

    from lipwire.cli.commands import client
    from lipwire.cli.servers.children import Child
    from lipwire.cli.servers.lifecycle import Stopping
    from lipwire.config.storesettings import is_store_url
    from lipwire.domain import LipwireError

    loopback = ["--host", "127.0.0.1"]
    if models_root is not None:
        loopback += ["--models-root", models_root]
    with Stopping() as stopping, ExitStack() as running:

        def start(name: str, *arguments: str, config: Path | None) -> int:
            named = [] if config is None else ["--config", str(config)]
            child = running.enter_context(Child(name, [name, *arguments, *loopback, *named]))
            return child.wait_ready(stopping)

        inference = start(
            "inference-server", "--port", str(inference_port), config=inference_config
        )
        address = f"127.0.0.1:{inference}"
        compositing = start(
            "compositing-server",
            "--port",
            str(port),
            "--inference",
            address,
            config=compositing_config,
        )
        here = f"127.0.0.1:{compositing}"
        typer.echo(f"Inference server at {address}, compositing server at {here}")
        if test:
            try:
                name = avatar or _first(here)
                # The client sends what the avatar's own package hears, so it has to find it.
                apart = models_root is None or is_store_url(models_root)
                known = name if apart else str(Path(str(models_root)).absolute() / name)
                client.run(known, audio, here, batch, save=save, stopped=lambda: stopping.asked)
            except LipwireError as error:
                if not stay:
                    raise
                typer.echo(f"test client: {error}", err=True)
        if stay and not stopping.asked:
            typer.echo("Serving; Ctrl-C ends it")
            stopping.wait()


def _first(address: str) -> str:
    """The avatar that the server has, demo where it is among them."""
    from lipwire.domain import NotFound
    from lipwire.rpc.connection import CompositingConnection

    with CompositingConnection(address) as connection:
        names = [model.model_id for model in connection.models(timeout_s=30)]
    if not names:
        raise NotFound("the server has no avatars; put one into its models_root")
    return "demo" if "demo" in names else names[0]
