"""`lipwire compositing-server`."""

from typing import Annotated

import typer

from lipwire.cli.servers import server_options as options


def command(
    config: options.Config = None,
    models_root: options.ModelsRoot = None,
    inference: Annotated[
        str | None,
        typer.Option(
            help="Inference servers, host:port, with commas between several (in place of "
            "inference_server.url).",
            show_default=False,
        ),
    ] = None,
    host: options.Host = None,
    port: options.Port = None,
    workers: options.Workers = None,
    json_logs: options.JsonLogs = False,
    ready_fd: options.ReadyFd = None,
    worker: options.Worker = None,
) -> None:
    """Put mouths from inference servers onto the avatars' frames (port 50052)."""
    from lipwire.cli.servers.process import Overrides, config_path, run_server
    from lipwire.config import load_compositing_config
    from lipwire.wiring.registries import has_web
    from lipwire.wiring.servers import open_compositing_server

    overrides = Overrides(models_root, host, port, workers, json_logs, ready_fd, worker)
    path = config_path(config)
    environ = overrides.environ()
    if inference is not None:
        environ["LIPWIRE_COMPOSITING__INFERENCE_SERVER__URL"] = inference
    settings = overrides.apply(load_compositing_config(path, environ))
    capacity = settings.capacity
    run_server(
        "compositing server",
        settings,
        overrides,
        {
            "Loaded from": path or "nowhere, defaults",
            "Inference server": ", ".join(settings.inference_server.url),
            "Max models": capacity.max_models,
            "Background cache": f"{capacity.background_cache_frames} frames per model",
            "Eviction policy": capacity.eviction_policy,
            "Configured models": len(settings.models),
        },
        lambda tell, place, metrics, own_socket: open_compositing_server(
            settings, tell=tell, place=place, metrics=metrics, own_socket=own_socket
        ),
        web=settings.web if has_web(settings, serve=False) else None,
    )
