"""The avatars of a server: what their names mean, and those that are open."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from lipwire.audio import AudioEncoder
from lipwire.avatars import Avatar, Part, list_avatars
from lipwire.avatars.catalog import Catalog
from lipwire.avatars.holdings import Loaded
from lipwire.avatars.registry import Registry
from lipwire.avatars.versions import package_version
from lipwire.config import CompositingConfig, ModelEntry, ServerConfig
from lipwire.domain import AvatarInvalid, InvalidInput, LipwireError, NotFound
from lipwire.wiring.periodic import every

_PARTS: Final[dict[str, frozenset[Part]]] = {
    "jpeg": frozenset({"jpeg"}),
    "raw": frozenset({"pixels"}),
}
STATS_EVERY_S: Final = 60.0
_LONGEST_SWEEP_S: Final = 30.0
_ENCODERS: Final = 64
_logger = logging.getLogger("lipwire.avatars")


def open_catalog(config: ServerConfig) -> Catalog:
    """The names that ``config`` serves: its models and its models_root.

    Where it names neither, the avatars are those that commands know by name. Raises NotFound where
    there is none at all; a models_root may be empty, it is looked at again.
    """
    if config.models or config.models_root is not None:
        return Catalog(config.models_root, config.packages)
    known = {path.name: path for path in list_avatars()}
    if not known:
        raise NotFound(
            "no avatars to serve; name a folder of avatar packages (--models-root DIR, or"
            " models_root in the configuration)"
        )
    return Catalog(None, known)


@contextmanager
def open_avatars(config: CompositingConfig, catalog: Catalog) -> Iterator[Registry[Avatar]]:
    """The registry of opened avatars that ``config`` asks for; closed with the block.

    What is idle is given up meanwhile, and with ``log_cache_stats`` it is said how the registry
    does.
    """
    capacity = config.capacity
    parts, quality = _PARTS[config.output.format], config.output.jpeg_quality

    def load(name: str) -> Loaded[Avatar]:
        entry = config.models.get(name)
        avatar = Avatar.open(catalog.path(name), parts=parts, quality=quality)
        try:
            check_frames(name, avatar.frame_count, entry)
            if entry is not None and entry.preload_backgrounds:
                avatar.preload(capacity.background_cache_frames)
        except BaseException:
            avatar.close()
            raise
        return Loaded(avatar, avatar.mapped_bytes, avatar.close)

    with ExitStack() as stack:
        avatars = stack.enter_context(
            Registry(
                load,
                max_items=capacity.max_models,
                max_bytes=capacity.max_memory_bytes,
                policy=capacity.eviction_policy,
                idle_s=capacity.idle_timeout_s,
                version=lambda name: package_version(catalog.path(name)),
            )
        )
        stack.enter_context(sweeping(avatars.sweep, capacity.idle_timeout_s))
        if config.logging.log_cache_stats:
            stack.enter_context(logging_stats("avatars open", avatars))
        yield avatars


@contextmanager
def sweeping(sweep: Callable[[], object], idle_s: float | None) -> Iterator[None]:
    """Call ``sweep`` often enough for things to go soon after they were idle for ``idle_s``."""
    if idle_s is None:
        yield
        return
    with every(min(_LONGEST_SWEEP_S, max(0.05, idle_s / 4)), sweep, "giving up idle avatars"):
        yield


def preload(names: Iterable[str], load: Callable[[str], object]) -> int:
    """Load ``names``, which are to be there from the start; returns how many could be.

    One that cannot be loaded is logged: the others are served.
    """
    done = 0
    for name in names:
        try:
            load(name)
            done += 1
        except LipwireError as error:
            _logger.error("cannot preload %s: %s", name, error, extra={"model": name})
    return done


def check_frames(name: str, frames: int, entry: ModelEntry | None) -> None:
    """Raises AvatarInvalid where an avatar has not the number of frames that was said."""
    if entry is not None and entry.num_frames not in (None, frames):
        raise AvatarInvalid(
            f"avatar {name} has {frames} frames; its num_frames is {entry.num_frames}"
        )


class Encoders:
    """The audio encoders of avatars, opened once; those not used for longest are let go."""

    def __init__(self, most: int = _ENCODERS) -> None:
        self._most = most
        self._opened: OrderedDict[tuple[object, ...], AudioEncoder] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, avatar: Avatar) -> AudioEncoder:
        """Raises InvalidInput where ``avatar`` has none."""
        path = avatar.encoder_path
        if path is None:
            raise InvalidInput(
                f"avatar {avatar.name} has no audio encoder, so raw_audio cannot be heard; send"
                " audio_features"
            )
        key = _identity(path)
        with self._lock:
            encoder = self._opened.get(key)
            if encoder is None:
                # Opened under the lock: the second asker would only open it again.
                encoder = self._opened[key] = AudioEncoder.open(path)
                while len(self._opened) > self._most:
                    self._opened.popitem(last=False)
            self._opened.move_to_end(key)
            return encoder


def _identity(path: Path) -> tuple[object, ...]:
    """Links to one file are one encoder."""
    try:
        found = path.stat()
    except OSError:
        return (path,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


@contextmanager
def logging_stats(what: str, registry: Registry[Any]) -> Iterator[None]:
    """Log how ``registry`` does, now and then; ``what`` it holds comes behind the number."""

    def log() -> None:
        stats = registry.stats()
        asked = stats.hits + stats.misses
        figures = {
            "held": len(stats.items),
            "bytes": stats.bytes,
            "hits": stats.hits,
            "misses": stats.misses,
            "evictions": stats.evictions,
            "failures": stats.failures,
        }
        _logger.info(
            "%d %s, %.1f MB; %d requests, %.2f %% hits, %d evictions, %d failures",
            len(stats.items),
            what,
            stats.bytes / 1e6,
            asked,
            100 * stats.hits / asked if asked else 100.0,
            stats.evictions,
            stats.failures,
            extra={"cache": what, **figures},
        )

    with every(STATS_EVERY_S, log, "cache statistics"):
        yield
