"""Where a server's avatars come from: a folder of packages, or a store of them with a cache."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lipwire.avatars.catalog import Catalog
from lipwire.avatars.packages import Packages
from lipwire.avatars.store.packagecache import PackageCache
from lipwire.avatars.store.storedavatars import StoredAvatars
from lipwire.config import ServerConfig
from lipwire.config.folders import cache_folders
from lipwire.config.links import let_links_lead_out
from lipwire.domain import Tell
from lipwire.observe.metrics import ServerMetrics
from lipwire.stores.objects import ObjectStore
from lipwire.wiring.measuring import measure_store
from lipwire.wiring.periodic import every
from lipwire.wiring.registries import open_catalog

_TICK_S: Final = 1.0


@contextmanager
def open_packages(
    config: ServerConfig,
    *,
    also: ServerConfig | None = None,
    sandboxed: bool = False,
    tell: Tell,
    metrics: ServerMetrics,
) -> Iterator[Packages]:
    """Give the ``with`` block a ``Packages``, which finds the files of the avatars of ``config`` by
    name, and close it afterwards. A context manager.

    Where ``models_root`` is a folder, or not given, that is the catalog that ``open_catalog``
    returns for ``config`` and ``also``. Where it is the URL of a store, avatars come from there,
    apart from those of its ``models`` that have paths, and a thread looks for what is published
    during the block; the store need not be there yet. ``also`` is another configuration, which may
    name files that ``models`` of ``config`` does not; None where there is none. ``sandboxed`` says
    whether avatars are compiled in a sandbox; where they are, no compiled parts that others have
    made are downloaded from the store. ``tell(heading, facts)`` is called for people who start the
    server, and ``metrics`` gets numbers about the store and the cache. Raises NotFound where there
    are no avatars to serve, DependencyMissing where fsspec is not installed, InvalidInput where the
    cache's folder is another store's, StorageFailed where it cannot be written to.
    """
    if config.store_url is None:
        yield open_catalog(config, also=also)
        return
    if config.allow_links_outside:
        let_links_lead_out()
    settings = config.store
    store = ObjectStore(
        config.store_url,
        endpoint_url=settings.endpoint_url,
        timeout_s=settings.timeout_seconds,
    )
    folder = settings.cache_folder or _own_folder(config.store_url, settings.endpoint_url)
    files = config.files
    for name, others in ({} if also is None else also.files).items():
        if name in files:
            files[name] = files[name].completed_by(others)
    entries = Catalog(None, files, hinting=not config.tells_apart)
    cache = PackageCache(
        folder,
        settings.cache_bytes,
        downloads=settings.downloads,
        belongs_to=config.store_url,
        shares_compiled=settings.compiled == "shared" and not sandboxed,
    )
    with StoredAvatars(store, cache, entries, poll_s=settings.poll_seconds) as stored:
        stored.poll()
        tell(
            f"Avatar store {config.store_url}",
            {
                "Reachable": "not yet" if stored.away else "yes",
                "Cache": f"{folder}, at most {settings.cache_gb:g} GiB",
            },
        )
        measure_store(metrics, stored)
        with every(min(_TICK_S, settings.poll_seconds), stored.tick, "looking at the avatar store"):
            yield stored


def _own_folder(url: str, endpoint_url: str | None) -> Path:
    """In the user's cache folder, one for each store."""
    text = f"{endpoint_url or ''}\n{url}"
    digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return cache_folders()[-1] / f"packages-{digest}"
