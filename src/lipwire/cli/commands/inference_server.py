"""`lipwire inference-server`."""

from lipwire.cli.servers import server_options as options


def command(
    config: options.Config = None,
    models_root: options.ModelsRoot = None,
    host: options.Host = None,
    port: options.Port = None,
    workers: options.Workers = None,
    json_logs: options.JsonLogs = False,
    ready_fd: options.ReadyFd = None,
    worker: options.Worker = None,
) -> None:
    """Run the avatars' networks for compositing servers (port 50051)."""
    from lipwire.cli.servers.process import Overrides, config_path, run_server
    from lipwire.config import load_inference_config
    from lipwire.wiring.servers import open_inference_server

    overrides = Overrides(models_root, host, port, workers, json_logs, ready_fd, worker)
    path = config_path(config)
    settings = overrides.apply(load_inference_config(path, overrides.environ()))
    capacity = settings.capacity
    run_server(
        "inference server",
        settings,
        overrides,
        {
            "Loaded from": path or "nowhere, defaults",
            "Workers per GPU": settings.server.worker_count_per_gpu,
            "Queue": settings.server.queue_size,
            "Max models per GPU": capacity.max_models_per_gpu,
            "Eviction policy": capacity.eviction_policy,
            "Configured models": len(settings.models),
        },
        lambda tell, place, metrics, own_socket: open_inference_server(
            settings, tell=tell, place=place, metrics=metrics, own_socket=own_socket
        ),
    )
