"""What was compiled of a version, in the store: one node compiles, and others of its kind do not.

A part lies there under its own name (``avatars.compiled.keys``), which says what it was made of, by
which versions, and for which kind of processor. A node takes those that it would make itself, and
brings those that it has made. Whoever may write to the store decides what networks run here, as
with packages; but what is compiled is not compiled again in a sandbox, so that where packages are
strangers' nothing is to be taken from there.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnxruntime

from lipwire.avatars.compiled.compiling import DEFAULT_QUALITY
from lipwire.avatars.compiled.fingerprints import Fingerprints
from lipwire.avatars.compiled.keys import package_keys
from lipwire.avatars.package import read_package
from lipwire.avatars.store.fetching import fetch, missing_files
from lipwire.avatars.store.layout import (
    MAX_MANIFEST_BYTES,
    Manifest,
    StoredFile,
    compiled_folder,
    file_key,
    files_folder,
    parse_files,
    why_not_a_path,
)
from lipwire.avatars.store.pushing import sha256_of
from lipwire.domain import AvatarFiles, AvatarInvalid, newfiles
from lipwire.stores.objects import ObjectStore

_PART: Final = re.compile(r"(model|gpu|patches|jpeg)-[0-9a-f]{8,64}-[A-Za-z0-9-]{1,80}")
_QUALITY: Final = re.compile(r"-q[0-9]{1,3}-")
_CUDA: Final = "CUDAExecutionProvider"


def take(store: ObjectStore, name: str, version: str, files: AvatarFiles) -> int:
    """Download what ``store`` has of the compiled form of ``version`` of the avatar ``name``, whose
    ``files`` are here, into the folder ``files.compiled``; return how many parts were downloaded,
    0 where ``files.compiled`` is None.

    Parts are the network, the network for GPUs, and what is made of the frames: the pixels round
    the mouth, and JPEG files. Only those that compiling on this machine would give, JPEG files in
    any quality, and that are not in that folder yet, are downloaded. Raises AvatarInvalid where a
    part is damaged or has a file of a name that it may not have, or the package in ``files`` is
    broken; NotFound where a file is missing in the store, Unavailable where the store is away, and
    OSError where the disk is full.
    """
    if files.compiled is None:
        return 0
    folder = compiled_folder(name, version)
    there = [each.name.removesuffix(".json") for each in store.listed(folder)]
    found = [each for each in there if _PART.fullmatch(each)]
    if not found:
        return 0
    own = _own_names(files, files.compiled)
    count = 0
    for part in found:
        if _any_quality(part) not in own or (files.compiled / part).exists():
            continue
        data = store.read(f"{folder}/{part}.json", MAX_MANIFEST_BYTES)
        manifest = parse_files(data, name, f"the compiled {part} of avatar {name}")
        _take_part(store, manifest, part, files.compiled)
        count += 1
    return count


def bring(store: ObjectStore, name: str, version: str, compiled: Path) -> int:
    """Upload the compiled form of ``version`` of the avatar ``name``, which lies in the folder
    ``compiled``, to ``store``; return how many parts were sent. Parts are the network, the network
    for GPUs, and what is made of the frames: the pixels round the mouth, and JPEG files. Those that
    the store has already are not sent. Raises Unavailable where the store cannot be reached or
    refuses, NotFound or OSError where a part, or the folder, was removed meanwhile."""
    folder = compiled_folder(name, version)
    there = {each.name.removesuffix(".json") for each in store.listed(folder)}
    parts = [each for each in sorted(compiled.iterdir()) if _PART.fullmatch(each.name)]
    wanted = [each for each in parts if each.name not in there]
    if not wanted:
        return 0
    known = {each.name: each.size_bytes for each in store.listed(files_folder(name))}
    for part in wanted:
        paths = dict(_files_of(part, compiled))
        files = [
            StoredFile(path, file.stat().st_size, sha256_of(file)) for path, file in paths.items()
        ]
        for each in files:
            if known.get(each.sha256) != each.size_bytes:
                store.upload(file_key(name, each.sha256), paths[each.path])
                known[each.sha256] = each.size_bytes
        manifest = Manifest(name, tuple(files))
        store.write(f"{folder}/{part.name}.json", manifest.to_bytes())
    return len(wanted)


def _own_names(files: AvatarFiles, compiled: Path) -> frozenset[str]:
    """The names of the parts that this machine would make, JPEG files of no quality."""
    package = read_package(files, frozenset())
    fingerprints = Fingerprints.load(package.path, (compiled,))
    keys = package_keys(package, fingerprints, DEFAULT_QUALITY).parts
    has_gpus = _CUDA in onnxruntime.get_available_providers()
    return frozenset(
        _any_quality(key.name) for part, key in keys.items() if part != "gpu" or has_gpus
    )


def _any_quality(part: str) -> str:
    return _QUALITY.sub("-q-", part, count=1) if part.startswith("jpeg-") else part


def _take_part(store: ObjectStore, manifest: Manifest, part: str, compiled: Path) -> None:
    """The part appears when all of it is there."""
    paths = {each.path for each in manifest.files}
    if paths != {part} and not all(path.startswith(f"{part}/") for path in paths):
        raise AvatarInvalid(f"the compiled {part} of avatar {manifest.avatar} has other files")
    compiled.mkdir(parents=True, exist_ok=True)
    temporary = newfiles.temporary_name(compiled)
    try:
        fetch(store, manifest, temporary, list(manifest.files), flushed=False)
        if missing_files(temporary, manifest):
            raise AvatarInvalid(f"the compiled {part} of avatar {manifest.avatar} is damaged")
        newfiles.publish(temporary / part, compiled / part)
    finally:
        newfiles.remove(temporary)


def _files_of(part: Path, compiled: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(part.rglob("*")) if part.is_dir() else [part]:
        within = path.relative_to(compiled).as_posix()
        if path.is_file() and not path.is_symlink() and why_not_a_path(within) is None:
            yield within, path
