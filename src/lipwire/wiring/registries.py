"""The registries of loaded avatars that servers have, and the catalog that finds an avatar's files
by its name."""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from lipwire.avatars import Avatar, Part, list_avatars
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.frames.framecache import FrameCache, shared_cache
from lipwire.avatars.package import BOTH, Half
from lipwire.avatars.packages import Packages
from lipwire.avatars.sandbox.limits import SandboxLimits, limits_memory
from lipwire.avatars.sandbox.sandbox import Sandbox
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.config import CompositingConfig, InferenceConfig, ModelEntry, ServerConfig
from lipwire.config.links import let_links_lead_out
from lipwire.config.settings import MIB, CapacitySettings
from lipwire.domain import AvatarFiles, AvatarInvalid, LipwireError, NotFound
from lipwire.observe.metrics import ServerMetrics
from lipwire.registry import Loaded, Policy, Registry
from lipwire.registry.registry import LOADERS, MAX_WAITING_LOADS
from lipwire.rpc.backends.network import RemoteNetwork
from lipwire.serving import Backend, Devices, LoadedAvatar, load_avatar, load_network
from lipwire.serving.loadedavatars import mapped_bytes
from lipwire.wiring.measuring import MeasuredFrames, measure_registry
from lipwire.wiring.periodic import every, logging_stats, sweeping

CHECK_GPUS_EVERY_S: Final = 2.0
_PARTS: Final[dict[str, frozenset[Part]]] = {
    "jpeg": frozenset({"jpeg"}),
    "raw": frozenset({"pixels"}),
    "h264": frozenset({"planes", "jpeg"}),  # live sessions have JPEG
}
_logger = logging.getLogger("lipwire.avatars")

_N = TypeVar("_N", int, float)


def open_catalog(config: ServerConfig, *, also: ServerConfig | None = None) -> Catalog:
    """Return the catalog, by which avatars are found by name, of the avatars that ``config``
    serves: its ``models``, and the packages in its ``models_root`` where that is a folder, which
    may be empty or not there yet. A ``models_root`` that is the URL of a store is not looked at
    (``open_packages`` serves its avatars).

    ``also`` is another configuration: for an avatar that both have in ``models``, files that
    ``config`` does not name (its network, say) are taken from ``also``, but no further avatars;
    None where there is none. Where ``config`` has neither ``models`` nor a ``models_root``, the
    avatars are all that this machine has in the usual folders (``lipwire.avatars.search_folders()``
    returns them), and NotFound is raised where there are none. ``allow_links_outside`` of
    ``config`` takes effect for all packages that this process reads from now on.
    """
    if config.allow_links_outside:
        let_links_lead_out()
    if config.models or config.models_root is not None:
        files = config.files
        for name, others in ({} if also is None else also.files).items():
            if name in files:
                files[name] = files[name].completed_by(others)
        # Another tenant's avatar must not be told by its name.
        return Catalog(config.models_folder, files, hinting=not config.tells_apart)
    known = {path.name: path for path in list_avatars()}
    if not known:
        raise NotFound(
            "no avatars to serve; name a folder of avatar packages (--models-root DIR, or"
            " models_root in the configuration)"
        )
    return Catalog(None, known, hinting=not config.tells_apart)


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a registry holds at most, and what goes first."""

    max_items: int
    max_bytes: int | None
    policy: Policy
    idle_s: float | None

    @classmethod
    def of(cls, capacity: CapacitySettings, max_items: int) -> "_Limits":
        return cls(
            max_items,
            capacity.max_memory_bytes,
            capacity.eviction_policy,
            capacity.idle_timeout_s,
        )


@contextmanager
def open_avatars(
    config: CompositingConfig,
    inference: InferenceConfig,
    catalog: Packages,
    devices: Devices,
    metrics: ServerMetrics,
) -> Iterator[Registry[LoadedAvatar]]:
    """Give the ``with`` block the registry of a server that makes mouths and composes frames, and
    close it afterwards. A context manager. It loads an avatar of ``catalog`` when it is first asked
    for, compiled first where need be, with its frames and with its network on one of ``devices``,
    and unloads others where a limit is reached. ``metrics`` counts all this. What is wrong with an
    avatar is raised by the registry when it is asked for, not here.

    Of each limit that both configurations have the lower one counts; the eviction policy is that of
    ``config``. How many networks fit on ``devices`` counts only where ``inference`` sets max_models
    or max_models_per_gpu.
    """
    said = {"max_models", "max_models_per_gpu"} & inference.capacity.model_fields_set

    def most() -> int:
        own = config.capacity.max_models
        return min(own, devices.max_models) if said else own

    own, others = config.capacity, inference.capacity
    limits = _Limits(
        most(),
        _least(own.max_memory_bytes, others.max_memory_bytes),
        own.eviction_policy,
        _least(own.idle_timeout_s, others.idle_timeout_s),
    )
    cache, measured = _frame_cache(config), MeasuredFrames(metrics)
    sandbox = _sandbox(own) or _sandbox(others)

    def load(name: str, files: AvatarFiles) -> Loaded[LoadedAvatar]:
        loaded = load_avatar(
            name,
            files,
            devices,
            parts=_parts(config, serve=True),
            quality=config.output.jpeg_quality,
            cache=cache,
            sandbox=sandbox,
        )
        with _closed_on_error(loaded.close):
            frames = loaded.value.frames
            assert frames is not None  # as load_avatar says
            frames.observer = measured
            _prepare(name, frames, config)
            check_frames(name, frames, inference.models)
        return loaded

    logs = config.logging.log_cache_stats or inference.logging.log_cache_stats
    with (
        _registry(
            load, catalog, BOTH, limits, metrics, what="avatars open" if logs else ""
        ) as avatars,
        _watching(devices, avatars, most),
    ):
        yield avatars


@contextmanager
def open_frames(
    config: CompositingConfig, catalog: Packages, backend: Backend, metrics: ServerMetrics
) -> Iterator[Registry[LoadedAvatar]]:
    """Give the ``with`` block the registry of a compositing server, and close it afterwards. A
    context manager. It loads an avatar of ``catalog`` when it is first asked for, compiled first
    where need be: its frames, while ``backend`` makes its mouths. Others are unloaded where a limit
    of ``config`` is reached. ``metrics`` counts all this. What is wrong with an avatar is raised by
    the registry when it is asked for, not here."""
    parts, quality = _parts(config, serve=False), config.output.jpeg_quality
    cache, measured = _frame_cache(config), MeasuredFrames(metrics)
    sandbox = _sandbox(config.capacity)

    def load(name: str, files: AvatarFiles) -> Loaded[LoadedAvatar]:
        frames = Avatar.open(
            files, parts=parts, with_model=False, quality=quality, cache=cache, sandbox=sandbox
        )
        frames.observer = measured
        with _closed_on_error(frames.close):
            _prepare(name, frames, config)
        network = RemoteNetwork(backend, name, frames)
        avatar = LoadedAvatar(frames, network, frames.revision)

        def close() -> None:
            avatar.close()
            frames.close()

        return Loaded(avatar, mapped_bytes(frames), close)

    limits = _Limits.of(config.capacity, config.capacity.max_models)
    what = "avatars open" if config.logging.log_cache_stats else ""
    with _registry(load, catalog, frozenset({"frames"}), limits, metrics, what=what) as avatars:
        yield avatars


@contextmanager
def open_networks(
    config: InferenceConfig, catalog: Packages, devices: Devices, metrics: ServerMetrics
) -> Iterator[Registry[LoadedAvatar]]:
    """Give the ``with`` block the registry of an inference server, and close it afterwards. A
    context manager. It loads an avatar of ``catalog`` when it is first asked for, compiled first
    where need be: its network on one of ``devices`` and, where their files are there, its frames.
    Others are unloaded where a limit of ``config`` is reached. ``metrics`` counts all this. What is
    wrong with an avatar is raised by the registry when it is asked for, not here."""
    sandbox = _sandbox(config.capacity)

    def load(name: str, files: AvatarFiles) -> Loaded[LoadedAvatar]:
        loaded = load_network(name, files, devices, sandbox=sandbox)
        frames = loaded.value.frames
        with _closed_on_error(loaded.close):
            if frames is not None:
                check_frames(name, frames, config.models)
            elif files.frames is not None or files.rectangles is not None:
                _logger.warning(
                    "%s: the frames that are named are not here; requests have to bring what the"
                    " network sees of them",
                    name,
                    extra={"model": name},
                )
        return loaded

    limits = _Limits.of(config.capacity, devices.max_models)
    what = "networks loaded" if config.logging.log_cache_stats else ""
    with (
        _registry(
            load, catalog, frozenset({"model"}), limits, metrics, what=what, kind="model"
        ) as avatars,
        _watching(devices, avatars, lambda: devices.max_models),
    ):
        yield avatars


@contextmanager
def _registry(
    load: Callable[[str, AvatarFiles], Loaded[LoadedAvatar]],
    catalog: Packages,
    need: frozenset[Half],
    limits: _Limits,
    metrics: ServerMetrics,
    *,
    what: str,
    kind: str = "avatar",
) -> Iterator[Registry[LoadedAvatar]]:
    """A registry of what ``load`` gives for the names of ``catalog``, whose files of the halves in
    ``need`` have to be there.

    What is idle is given up meanwhile, and how the registry does is logged: how many of ``what`` it
    has; empty for no log.
    """

    # While some loads wait for a store, others are opened.
    loaders = LOADERS + (MAX_WAITING_LOADS if isinstance(catalog, StoredAvatars) else 0)
    opening = threading.BoundedSemaphore(LOADERS)

    def timed(name: str) -> Loaded[LoadedAvatar]:
        with metrics.cold_start_s.time(), ExitStack() as held:
            files = held.enter_context(catalog.hold(name))
            with opening:
                loaded = load(name, files.files)
            held.callback(loaded.close)
            files.measure()
            return Loaded(loaded.value, loaded.bytes, held.pop_all().close)

    with ExitStack() as stack:
        avatars = stack.enter_context(
            Registry(
                timed,
                max_items=limits.max_items,
                max_bytes=limits.max_bytes,
                policy=limits.policy,
                idle_s=limits.idle_s,
                version=lambda name: catalog.version(name, need),
                refresh=catalog.refresh,
                loaders=loaders,
                kind=kind,
            )
        )
        catalog.opened_by(avatars.evict, avatars.unload)
        measure_registry(metrics, f"{kind}s", avatars)
        stack.enter_context(sweeping(avatars.sweep, limits.idle_s))
        if what:
            stack.enter_context(logging_stats(what, avatars))
        yield avatars


@contextmanager
def _watching(
    devices: Devices, avatars: Registry[LoadedAvatar], most: Callable[[], int]
) -> Iterator[None]:
    """Take GPUs out that the driver says are gone; the registry then holds ``most``."""

    def check() -> None:
        devices.check()
        avatars.limit_items(max(1, most()))

    if not devices.gpus():
        yield
        return
    with every(CHECK_GPUS_EVERY_S, check, "checking the GPUs"):
        yield


def _parts(config: CompositingConfig, *, serve: bool) -> frozenset[Part]:
    """What avatars are opened with."""
    parts = _PARTS[config.output.format]
    video = has_web(config, serve=serve) or config.renders.enabled
    return parts | {"planes"} if video else parts


def has_web(config: CompositingConfig, *, serve: bool) -> bool:
    """Return whether a server with the configuration ``config`` has the web page and the HTTP API:
    what ``web.enabled`` says, or ``serve`` where that is not set. ``serve`` says whether the server
    is that of ``lipwire serve``."""
    enabled = config.web.enabled
    return serve if enabled is None else enabled


def _sandbox(capacity: CapacitySettings) -> Sandbox | None:
    """Where packages are compiled; None is this process."""
    if not capacity.compile_sandbox:
        return None
    if not limits_memory():
        _logger.warning(
            "capacity.compile_sandbox: this system does not limit a process's memory, so"
            " compile_memory_mb does not count; its time does"
        )
    limits = SandboxLimits(
        capacity.compile_memory_mb * MIB, float(capacity.compile_timeout_seconds)
    )
    return Sandbox(limits)


def _frame_cache(config: CompositingConfig) -> FrameCache:
    budget_bytes = config.capacity.frame_cache_bytes
    return shared_cache() if budget_bytes is None else FrameCache(budget_bytes)


def _prepare(name: str, frames: Avatar, config: CompositingConfig) -> None:
    """Say what people should know of an avatar that was opened, and read ahead what is wanted."""
    for note in frames.notes:
        _logger.warning("%s: %s", name, note, extra={"model": name})
    check_frames(name, frames, config.models)
    entry = config.models.get(name)
    if entry is not None and entry.preload_backgrounds:
        frames.preload(config.capacity.background_cache_frames)


def check_frames(name: str, frames: Avatar, entries: Mapping[str, ModelEntry]) -> None:
    """Raise AvatarInvalid where the opened avatar called ``name`` has another number of source
    frames (the frames of its package's video or folder, ``frames.source_frame_count``) than its
    entry in the configuration says (``num_frames``). ``entries`` are those entries by avatar name.
    Does nothing where there is no entry, or one without that number."""
    entry, count = entries.get(name), frames.source_frame_count
    if entry is not None and entry.num_frames not in (None, count):
        raise AvatarInvalid(
            f"avatar {name} has {count} frames; its num_frames is {entry.num_frames}"
        )


@contextmanager
def _closed_on_error(close: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        close()
        raise


def _least(one: _N | None, other: _N | None) -> _N | None:
    """The smaller limit; None is none."""
    given = [limit for limit in (one, other) if limit is not None]
    return min(given, default=None)


def preload(names: Iterable[str], load: Callable[[str], object]) -> int:
    """Call ``load(name)`` for each of ``names``, the names of avatars, one after the other, and
    return how many could be loaded. A LipwireError of ``load`` is logged, and the next one is
    loaded; other exceptions are raised."""
    done = 0
    for name in names:
        try:
            load(name)
            done += 1
        except LipwireError as error:
            _logger.error("cannot preload %s: %s", name, error, extra={"model": name})
    return done
