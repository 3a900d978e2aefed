"""Thousands of avatars in a store, for a server with a cache for some of them.

All of them are published, so that the server lists them all. Of those that will be asked for the
files are there too, and what is compiled of them: the others' would be 11,000 copies of the same.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipwire.avatars import Avatar
from lipwire.avatars.store import compiledparts, pushing
from lipwire.avatars.store.cacheindex import folder_bytes
from lipwire.avatars.store.layout import Published, pointer_key
from lipwire.config.storesettings import GIB
from lipwire.domain import AvatarFiles
from lipwire.stores.objects import ObjectStore

_SENDERS: Final = 8
_SPARE: Final = 1.02
"""Manifests, and what a compiled form has beside its parts."""
_NO_VERSION: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Stored:
    """What a server needs to know of a store of avatars: the store's ``url``; the address of its
    server with S3's protocol (``endpoint_url``; None: Amazon's); the ``cache`` folder on this
    machine, and how many bytes that folder may take (``cache_bytes``)."""

    url: str
    endpoint_url: str | None
    cache: Path
    cache_bytes: int

    def environ(self) -> dict[str, str]:
        """Return the environment variables, value by name, that set the cache and the endpoint in a
        server's configuration; the ``url`` is not among them (it is the ``models_root``)."""
        found = {
            "LIPWIRE_STORE__CACHE_FOLDER": str(self.cache),
            "LIPWIRE_STORE__CACHE_GB": str(self.cache_bytes / GIB),
            "LIPWIRE_STORE__COMPILED": "shared",
        }
        if self.endpoint_url is not None:
            found["LIPWIRE_STORE__ENDPOINT_URL"] = self.endpoint_url
        return found


def fill_store(
    url: str,
    endpoint_url: str | None,
    *,
    announced: Iterable[str],
    packages: Mapping[str, Path],
    others: Mapping[str, Path],
    folder: Path,
    cached: int,
) -> Stored:
    """Publish avatars in the store at ``url``, and return the store with a cache: a folder inside
    ``folder`` that has room for ``cached`` of ``packages``, and for all of ``others``.

    ``packages`` and ``others`` map avatars' names to the folders of their packages, which are
    compiled into ``folder``; their files and compiled parts are put into the store. Other names in
    ``announced`` are only published, without any files. ``endpoint_url`` is the address of a server
    with S3's protocol; None is Amazon's. Raises Unavailable where the store cannot be asked.
    """
    store = ObjectStore(url, endpoint_url=endpoint_url)
    wanted = {**packages, **others}
    homes = {
        package: folder / f"compiled-{number}"
        for number, package in enumerate(dict.fromkeys(wanted.values()))
    }
    for package, home in homes.items():
        files = AvatarFiles(folder=package, compiled=home)
        Avatar.open(files, parts=frozenset({"jpeg"})).close()

    def send(name: str) -> int:
        manifest = pushing.push(store, name, wanted[name])
        compiledparts.bring(store, name, manifest.version, homes[wanted[name]])
        pushing.publish(store, name, manifest.version)
        return manifest.size_bytes

    def announce(name: str) -> None:
        store.write(pointer_key(name), Published(_NO_VERSION).to_bytes())

    with ThreadPoolExecutor(_SENDERS) as senders:
        list(senders.map(announce, set(announced) - wanted.keys()))
        sizes = dict(zip(wanted, senders.map(send, wanted), strict=True))

    def room(name: str) -> int:
        return sizes[name] + folder_bytes(homes[wanted[name]])

    cache_bytes = cached * max(map(room, packages)) + sum(map(room, others))
    return Stored(url, endpoint_url, folder / "cache", int(cache_bytes * _SPARE))
