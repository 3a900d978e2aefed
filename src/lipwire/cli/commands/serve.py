"""`lipwire serve`."""

from pathlib import Path
from typing import Annotated

import typer

from lipwire.cli.servers import server_options as options


def command(
    config: options.Config = None,
    inference_config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of the inference server, for how networks are run.",
            show_default=False,
        ),
    ] = None,
    models_root: options.ModelsRoot = None,
    host: options.Host = None,
    port: options.Port = None,
    web_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of the page and the HTTP API, 0 for any (in place of web.port).",
            show_default=False,
        ),
    ] = None,
    no_web: Annotated[
        bool, typer.Option("--no-web", help="Neither the page nor the HTTP API.")
    ] = False,
    workers: options.Workers = None,
    json_logs: options.JsonLogs = False,
    ready_fd: options.ReadyFd = None,
    worker: options.Worker = None,
) -> None:
    """Run a compositing server and an inference server in one process, without a connection between
    them.

    The configuration is that of the compositing server. The port is 50052, unless it names another.
    """
    from lipwire.cli.servers.process import Overrides, config_path, run_server
    from lipwire.config import load_compositing_config, load_inference_config
    from lipwire.wiring.registries import has_web
    from lipwire.wiring.servers import open_serve

    overrides = Overrides(models_root, host, port, workers, json_logs, ready_fd, worker)
    path = config_path(config)
    settings = overrides.apply(load_compositing_config(path, overrides.environ()))
    changes: dict[str, object] = {}
    if web_port is not None:
        changes["port"] = web_port
    if no_web:
        changes["enabled"] = False
    settings = settings.model_copy(update={"web": settings.web.model_copy(update=changes)})
    networks = load_inference_config(inference_config, overrides.environ())
    # Cores are shared among the processes, however the file of the inference server counts them.
    server = networks.server.model_copy(update={"workers": settings.server.workers})
    networks = networks.model_copy(update={"server": server})
    capacity = settings.capacity
    run_server(
        "inference and compositing in one process",
        settings,
        overrides,
        {
            "Loaded from": path or "nowhere, defaults",
            "Max models": capacity.max_models,
            "Background cache": f"{capacity.background_cache_frames} frames per model",
            "Eviction policy": capacity.eviction_policy,
            "Configured models": len(settings.models),
        },
        lambda tell, place, metrics, own_socket: open_serve(
            settings, networks, tell=tell, place=place, metrics=metrics, own_socket=own_socket
        ),
        web=settings.web if has_web(settings, serve=True) else None,
    )
