"""What servers share with others, and finished videos: Redis, and where renders lie."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lipwire.cli.doctor.checks import Check, fault, holds, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.config import CompositingConfig

_MIB: Final = 1 << 20
_REDIS: Final = "redis"
_RENDERS: Final = "finished videos"
_CACHE: Final = "renders.cache"


def redis(config: CompositingConfig) -> Check:
    """Check that the Redis server of ``config`` answers and lets Lipwire write, by writing a key
    that expires within a second. NOT_APPLICABLE where ``config`` names no server."""
    from lipwire.domain import LipwireError
    from lipwire.wiring.sharing import open_redis

    if not config.redis.enabled:
        return not_applicable(_REDIS, "redis.url names none")
    wanted = "a Redis server that answers, in which keys may be written"
    try:
        with (
            _said("lipwire.stores") as said,
            open_redis(config.redis, tell=lambda _heading, _facts: None) as connection,
        ):
            up = connection is not None and connection.up
    except LipwireError as error:
        return fault(_REDIS, str(error), wanted, "install or set what it names")
    if up:
        return ok(_REDIS, f"{config.redis.host}:{config.redis.port} answers", wanted)
    seen = said[0] if said else f"{config.redis.host}:{config.redis.port} does not answer in time"
    return fault(_REDIS, seen, wanted, "start it, or set redis.url; see docs/deployment.md")


@contextmanager
def _said(name: str) -> Iterator[list[str]]:
    """What the logger ``name`` is given during the block, which is logged nowhere else."""
    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False

    logger = logging.getLogger(name)
    logger.addFilter(keep)
    try:
        yield said
    finally:
        logger.removeFilter(keep)


def renders(config: CompositingConfig) -> Iterator[Check]:
    """Yield checks that finished videos can be kept in the folder that ``config`` names, with room
    for as much as it allows; and, where they are shared in a store (``renders.cache.url``), that
    the store answers. Where no folder is named, yields one check, NOT_APPLICABLE. Nothing is
    written."""
    from lipwire.avatars.store.cacheindex import folder_bytes

    settings = config.renders
    if settings.folder is None:
        yield not_applicable(_RENDERS, "renders.folder names no folder: none are made")
        return
    budget_bytes = settings.disk_budget_mb * _MIB
    wanted = f"a folder that can be written, with room for {budget_bytes / 1e9:.1f} GB"
    there = settings.folder
    while not os.path.lexists(there):
        there = there.parent
    if not holds(there.is_dir) or not os.access(there, os.W_OK | os.X_OK):
        seen = f"{settings.folder} cannot be written to"
        yield fault(_RENDERS, seen, wanted, "make it, and let the server's user")
    else:
        used_bytes = folder_bytes(settings.folder)
        free_bytes = shutil.disk_usage(there).free
        seen = f"{used_bytes / 1e9:.1f} GB used in {settings.folder}, {free_bytes / 1e9:.1f} free"
        if used_bytes + free_bytes < budget_bytes:
            remedy = "make room, or lower renders.disk_budget_mb or renders.retention_hours"
            yield warning(_RENDERS, seen, wanted, remedy)
        else:
            yield ok(_RENDERS, seen, wanted)
    if settings.cache.url is not None:
        yield _shared(config, settings.cache.url)


def _shared(config: CompositingConfig, url: str) -> Check:
    from lipwire.domain import LipwireError
    from lipwire.wiring.renders import open_shared_store

    wanted = "a store that can be read"
    try:
        open_shared_store(config.renders.cache, url).listed("")
    except LipwireError as error:
        return fault(_CACHE, f"{url}: {error}", wanted, "set renders.cache.url, or allow it")
    return ok(_CACHE, f"{url} answers", wanted)
