"""Bringing an avatar's package into a store, and saying which of its versions is published.

    hash every file -> send those that are missing -> the manifest -> (published) the pointer

A version is there when its manifest is, which is written last, so what is interrupted is nowhere
half there; sent again, it goes on with the files that are missing.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from lipwire.avatars.compiled.storage import HOME_NAME
from lipwire.avatars.package import read_package
from lipwire.avatars.store.layout import (
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    MAX_PACKAGE_BYTES,
    MAX_POINTER_BYTES,
    PUBLISHED,
    Canary,
    Manifest,
    Published,
    StoredFile,
    compiled_folder,
    file_key,
    files_folder,
    is_version,
    manifest_key,
    name_of,
    parse_manifest,
    parse_published,
    pointer_key,
    versions_folder,
    why_not_a_path,
)
from lipwire.config.links import HOW, links_may_lead_out
from lipwire.domain import InvalidInput, NotFound
from lipwire.domain.names import checked_name
from lipwire.domain.newfiles import TEMPORARY
from lipwire.domain.wording import shown
from lipwire.stores.objects import ObjectStore

SENDERS: Final = 8
SHORT_DIGITS: Final = 12
"""Of a version's name, where people are shown it."""
_LEAST_DIGITS: Final = 6
_READ_BYTES: Final = 1024 * 1024

Told = Callable[[int, int], object]
"""Called with how many bytes are done, and how many there are."""


def push(
    store: ObjectStore, name: str, package: Path, told: Told = lambda done, total: None
) -> Manifest:
    """Bring the avatar package in the folder ``package`` into ``store`` as a version of the avatar
    ``name``, and return its manifest; files that the store has already are not sent. It is not
    published: ``publish`` does that.

    ``told(done, total)`` is called in the caller's thread with numbers of bytes; files that the
    store has already count as done. Hidden files and compiled forms are left out. Raises
    InvalidInput where ``name`` cannot be an avatar's, or a file has a path that no package may
    have, is a link that leads out of the package, or changes meanwhile, or there are too many or
    too large files; NotFound where there is no package, AvatarInvalid where it is broken;
    Unavailable where the store is away.
    """
    name = checked_name(name)
    read_package(package)
    paths = dict(_files_of(package))
    total = sum(path.stat().st_size for path in paths.values())
    files: list[StoredFile] = []
    stamps: dict[str, tuple[int, int, int]] = {}
    for path, file in sorted(paths.items()):
        stamps[path] = _stamp(file)
        files.append(StoredFile(path, file.stat().st_size, sha256_of(file)))
    manifest = Manifest(name, tuple(files))
    _check_limits(manifest)
    there = {each.name: each.size_bytes for each in store.listed(files_folder(name))}
    wanted = {
        each.sha256: each for each in manifest.files if there.get(each.sha256) != each.size_bytes
    }
    done = total - sum(each.size_bytes for each in wanted.values())
    told(min(done, total), total)

    def send(file: StoredFile) -> int:
        source = paths[file.path]
        store.upload(file_key(name, file.sha256), source)
        if _stamp(source) != stamps[file.path]:
            # What was sent may be half of each; under this name nobody may find it.
            store.remove(file_key(name, file.sha256))
            raise InvalidInput(f"{file.path} was changed while it was sent; push it again")
        return file.size_bytes

    with ThreadPoolExecutor(SENDERS, thread_name_prefix="lipwire-push") as senders:
        try:
            for sent in senders.map(send, wanted.values()):
                done += sent
                told(min(done, total), total)
        except BaseException:
            senders.shutdown(wait=True, cancel_futures=True)
            raise
    store.write(manifest_key(name, manifest.version), manifest.to_bytes())
    return manifest


def publish(store: ObjectStore, name: str, version: str, share: float = 1.0) -> Published:
    """Publish ``version`` of the avatar ``name`` in ``store``, so that it is shown from now on, and
    return what is published then. Servers notice it the next time they ask the store.

    ``version`` is a version's name or its beginning, at least 6 characters. With a ``share`` below
    1 that share of those who use the avatar are shown it (a canary), in place of an earlier canary,
    and all others the version that was published before. With 1 all are shown it, and a canary
    ends.

    Raises NotFound where there is no such version, or, with a ``share`` below 1, none is published
    for all; InvalidInput where ``name`` cannot be an avatar's, several versions begin with
    ``version``, it is too short, ``share`` is not above 0 and at most 1, or, with a ``share`` below
    1, the version is shown to all already; AvatarInvalid where what the store says of the avatar is
    damaged; Unavailable where the store is away.
    """
    name = checked_name(name)
    if not 0 < share <= 1:
        raise InvalidInput(f"the share is {share:g}; allowed is above 0, and at most 1")
    version = find_version(store, name, version)
    try:
        now = published(store, name)
    except NotFound:
        if share < 1:
            raise NotFound(
                f"no version of {name} is published for all, beside which a share could be shown"
                " another one; publish one without --share first"
            ) from None
        then = Published(version)
    else:
        if share < 1 and version == now.version:
            raise InvalidInput(f"version {version[:SHORT_DIGITS]} of {name} is shown to all")
        then = now.then(version) if share == 1 else replace(now, canary=Canary(version, share))
    store.write(pointer_key(name), then.to_bytes())
    return then


def rollback(store: ObjectStore, name: str) -> Published:
    """End the canary of the avatar ``name`` in ``store``, where there is one; else have the version
    shown again that was published before the present one. Return what is published then. Raises
    NotFound where nothing is published, or nothing was before; InvalidInput where ``name`` cannot
    be an avatar's, AvatarInvalid where what the store says is damaged, Unavailable where the store
    is away."""
    name = checked_name(name)
    now = published(store, name)
    if now.canary is not None:
        then = replace(now, canary=None)
        store.write(pointer_key(name), then.to_bytes())
        return then
    if not now.before:
        raise NotFound(f"avatar {name} had no other version before {now.version[:SHORT_DIGITS]}")
    then = Published(now.before[0], now.before[1:])
    store.write(pointer_key(name), then.to_bytes())
    return then


def published(store: ObjectStore, name: str) -> Published:
    """Return what is published of the avatar ``name`` in ``store``. Raises NotFound where nothing
    is, InvalidInput where ``name`` cannot be an avatar's, AvatarInvalid where the store has
    something else in its place, and Unavailable where the store is away."""
    name = checked_name(name)
    try:
        data = store.read(pointer_key(name), MAX_POINTER_BYTES)
    except NotFound:
        raise NotFound(f"no avatar named {name} is published in the store") from None
    return parse_published(data, name)


def read_manifest(store: ObjectStore, name: str, version: str) -> Manifest:
    """Return the manifest of ``version``, its whole name, of the avatar ``name`` from ``store``.
    Raises NotFound where there is none, AvatarInvalid where it is damaged or asks for what no
    package has, and Unavailable where the store is away."""
    try:
        data = store.read(manifest_key(name, version), MAX_MANIFEST_BYTES)
    except NotFound:
        raise NotFound(
            f"avatar {name} has no version {version[:SHORT_DIGITS]} in the store"
        ) from None
    return parse_manifest(data, name, version)


def versions(store: ObjectStore, name: str) -> list[str]:
    """Return the names of all versions that ``store`` has of the avatar ``name``, published or not,
    in alphabetical order, which is not that of their time; an empty list where there is none.
    Raises InvalidInput where ``name`` cannot be an avatar's, Unavailable where the store is away.
    """
    found = (each.name for each in store.listed(versions_folder(checked_name(name))))
    return [text for each in found if is_version(text := each.removesuffix(".json"))]


def find_version(store: ObjectStore, name: str, text: str) -> str:
    """Return the whole name of the version of the avatar ``name`` in ``store`` that begins with
    ``text``. Raises NotFound where none does; InvalidInput where several do, ``text`` has less than
    6 characters, or ``name`` cannot be an avatar's; Unavailable where the store is away."""
    if len(text) < _LEAST_DIGITS:
        raise InvalidInput(
            f"the version is {shown(text)}; at least {_LEAST_DIGITS} digits of it are needed"
        )
    found = [each for each in versions(store, name) if each.startswith(text.lower())]
    if not found:
        raise NotFound(f"avatar {name} has no version {shown(text)} in the store")
    if len(found) > 1:
        raise InvalidInput(f"{len(found)} versions of {name} begin with {text}; give more of it")
    return found[0]


def forget(store: ObjectStore, name: str) -> int:
    """Remove all that ``store`` has of the avatar ``name``: first the file that says which version
    is published, so that nobody finds half of it. Return how many other files were removed; 0 where
    there were none. Raises InvalidInput where ``name`` cannot be an avatar's, Unavailable where the
    store is away."""
    name = checked_name(name)
    store.remove(pointer_key(name))
    count = 0
    compiled = [compiled_folder(name, version) for version in versions(store, name)]
    for folder in (*compiled, versions_folder(name), files_folder(name)):
        for each in store.listed(folder):
            store.remove(f"{folder}/{each.name}")
            count += 1
    return count


def avatars_in(store: ObjectStore) -> dict[str, tuple[str, ...]]:
    """Return the names of all avatars that are published in ``store``, each with a token that
    differs when another version is published. One request lists them. Raises Unavailable where the
    store is away."""
    found = ((name_of(each.name), each.token) for each in store.listed(PUBLISHED))
    return {name: token for name, token in found if name is not None}


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file ``path``, 64 hexadecimal digits. Raises OSError where it
    cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _files_of(package: Path) -> Iterator[tuple[str, Path]]:
    """The package's files by their paths in it; hidden ones, and compiled forms, stay here."""
    root = package.resolve()
    for place, folders, names in os.walk(root, followlinks=links_may_lead_out()):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in [*names, *folders]:
            path = Path(place) / name
            within = path.relative_to(root).as_posix()
            if not path.resolve().is_relative_to(root) and not links_may_lead_out():
                raise InvalidInput(f"{within} is a link that leads out of the package; {HOW}")
            if name in folders:
                if path.is_symlink() and not links_may_lead_out():
                    raise InvalidInput(f"{within} is a link to a folder; put its files there")
                continue
            if name.startswith(".") or HOME_NAME in path.parts or TEMPORARY in name:
                continue
            if (reason := why_not_a_path(within)) is not None:
                raise InvalidInput(f"the path {shown(within)} {reason}; give it another name")
            if not path.is_file():
                raise InvalidInput(f"{within} is not a file; a store takes files alone")
            yield within, path


def _stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _check_limits(manifest: Manifest) -> None:
    """What is refused of a store is not put into one."""
    count, size_bytes = len(manifest.files), manifest.size_bytes
    if count > MAX_FILES or size_bytes > MAX_PACKAGE_BYTES:
        raise InvalidInput(
            f"{manifest.avatar} has {count} files of {size_bytes} bytes; allowed are {MAX_FILES}"
            f" files of {MAX_PACKAGE_BYTES}"
        )
    with suppress(UnicodeError):
        parse_manifest(manifest.to_bytes(), manifest.avatar, manifest.version)
        return
    raise InvalidInput(f"{manifest.avatar} has a file whose name is no text")
