"""Where a server's mouths come from: networks in this process, or inference servers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

from lipwire.avatars.catalog import Catalog
from lipwire.avatars.holdings import Loaded
from lipwire.avatars.registry import Registry
from lipwire.avatars.versions import package_version
from lipwire.config import CompositingConfig, InferenceConfig, usable_cores
from lipwire.domain import DependencyMissing
from lipwire.engine import Engine
from lipwire.engine.scheduler import Scheduler
from lipwire.rpc.backends import Backend
from lipwire.rpc.backends.local import LocalBackend, Network, load_network, run_on
from lipwire.rpc.backends.remote import RemoteBackend
from lipwire.wiring.pictures import check_frames, logging_stats, sweeping

Tell = Callable[[str, Mapping[str, object]], None]

_NO_CUDA: Final = "networks run on the processor: this build has no CUDA"


@contextmanager
def open_backend(config: InferenceConfig, catalog: Catalog, *, tell: Tell) -> Iterator[Backend]:
    """Networks in this process, as ``config`` says; closed with the block.

    Raises DependencyMissing where CUDA is required and not there.
    """
    if config.requires_cuda:
        raise DependencyMissing(f"onnx.use_cuda is strict, but {_NO_CUDA}")
    capacity = config.capacity
    workers = workers_of(config)
    with ExitStack() as stack:
        # One thread a run, and as many runs at a time as there are workers.
        engine = stack.enter_context(Engine(threads=1))

        def load(name: str) -> Loaded[Network]:
            loaded = load_network(engine, catalog.path(name))
            try:
                check_frames(name, loaded.value.avatar.frame_count, config.models.get(name))
            except BaseException:
                loaded.close()
                raise
            return loaded

        networks = stack.enter_context(
            Registry(
                load,
                max_items=capacity.max_models_per_gpu,
                max_bytes=capacity.max_memory_bytes,
                policy=capacity.eviction_policy,
                idle_s=capacity.idle_timeout_s,
                version=lambda name: package_version(catalog.path(name)),
                kind="model",
            )
        )
        stack.enter_context(sweeping(networks.sweep, capacity.idle_timeout_s))
        scheduler = stack.enter_context(
            Scheduler(run_on(engine), workers=workers, queue_size=config.server.queue_size)
        )
        if config.logging.log_cache_stats:
            stack.enter_context(logging_stats("networks loaded", networks))
        tell("GPU status", _device_facts(config, workers))
        yield stack.enter_context(
            LocalBackend(networks, scheduler, max_models=capacity.max_models_per_gpu)
        )


@contextmanager
def connect_backend(config: CompositingConfig) -> Iterator[Backend]:
    """The inference servers of ``config``, connected to in the background."""
    servers = config.inference_server
    with RemoteBackend(
        servers.url,
        timeout_s=servers.timeout_seconds,
        max_retries=servers.max_retries,
        max_message_bytes=config.server.max_message_bytes,
    ) as backend:
        yield backend


def workers_of(config: InferenceConfig) -> int:
    """Runs of networks at a time in this process: without a GPU, at most its share of the cores."""
    share = max(1, usable_cores() // config.server.workers)
    return min(config.server.worker_count_per_gpu, share)


def _device_facts(config: InferenceConfig, workers: int) -> dict[str, object]:
    facts: dict[str, object] = {"GPU": "none, networks run on the processor"}
    if config.wants_cuda:
        facts["CUDA"] = "asked for (onnx.use_cuda) and NOT AVAILABLE in this build"
    cores = usable_cores()
    facts["Workers"] = (
        f"{workers} (worker_count_per_gpu is {config.server.worker_count_per_gpu}, there are"
        f" {cores} cores)"
    )
    return facts
