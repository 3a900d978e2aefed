"""The files of a version, brought from a store into a folder, each checked by its hash.

What is there and right is kept, so an interrupted download goes on where it was, and a folder that
was damaged is mended. A file appears under its name when all of it is there and right.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from lipwire.avatars.store.layout import Manifest, StoredFile, file_key
from lipwire.avatars.store.pushing import SHORT_DIGITS, sha256_of
from lipwire.domain import AvatarInvalid, NotFound, newfiles
from lipwire.domain.newfiles import remove
from lipwire.stores.objects import CHUNK_BYTES, ObjectStore

RECEIVERS: Final = 8

Told = Callable[[int, int], object]
"""Called with how many bytes are done, and how many there are."""


def missing_files(folder: Path, manifest: Manifest) -> list[StoredFile]:
    """Return the files of ``manifest`` that ``folder`` lacks or has wrong: missing, of another size
    or hash, or no plain file. All files that are there are read."""
    return [each for each in manifest.files if not is_sound(folder / each.path, each)]


def is_sound(path: Path, file: StoredFile) -> bool:
    """Return whether ``path`` is a plain file with the size and the SHA-256 of ``file``; False also
    where it cannot be read."""
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size_bytes:
            return False
        return sha256_of(path) == file.sha256
    except OSError:
        return False


def remove_others(folder: Path, manifest: Manifest) -> None:
    """Remove all links in ``folder`` and below it, and the files that ``manifest`` does not have,
    such as what an interrupted download left. Folders stay. Does nothing where ``folder`` is not
    there. Raises nothing: what cannot be removed stays.
    """
    wanted = {folder / each.path for each in manifest.files}
    for place, folders, names in os.walk(folder):
        for name in [*names, *folders]:
            path = Path(place) / name
            if path.is_symlink() or (name in names and path not in wanted):
                remove(path)


def fetch(
    store: ObjectStore,
    manifest: Manifest,
    folder: Path,
    files: list[StoredFile],
    told: Told = lambda done, total: None,
    *,
    flushed: bool = True,
) -> None:
    """Download ``files``, some or all of the files that ``manifest`` lists, from ``store`` into
    ``folder``, which is made where it is missing; returns when all are there. A file that exists
    already is replaced when the new one is there in full.

    ``told(done, total)`` is called after each file with the bytes brought and those of all
    ``files``. With ``flushed`` each is written to the disk before it gets its name; a cache, whose
    files are checked when it is opened, need not wait for that.

    Raises NotFound where the store lacks a file, AvatarInvalid where one has not the size and hash
    that the manifest says, Unavailable where the store cannot be reached, and OSError where the
    disk is full. Files that were downloaded before the error stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, total = 0, sum(each.size_bytes for each in files)

    def bring(file: StoredFile) -> int:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir() and not target.is_symlink():
            remove(target)
        _bring(store, manifest.avatar, file, target, flushed)
        return file.size_bytes

    with ThreadPoolExecutor(RECEIVERS, thread_name_prefix="lipwire-fetch") as receivers:
        try:
            for size in receivers.map(bring, files):
                done += size
                told(done, total)
        except BaseException:
            receivers.shutdown(wait=True, cancel_futures=True)
            raise


def _bring(store: ObjectStore, avatar: str, file: StoredFile, target: Path, flushed: bool) -> None:
    """Raises as ``fetch``."""
    temporary = newfiles.temporary_name(target.parent)
    try:
        with temporary.open("xb") as stream:
            digest = hashlib.sha256()
            at = 0
            while at < file.size_bytes:
                end = min(at + CHUNK_BYTES, file.size_bytes)
                piece = store.read_range(file_key(avatar, file.sha256), at, end)
                if not piece:
                    break
                digest.update(piece)
                stream.write(piece)
                at += len(piece)
            if at != file.size_bytes or digest.hexdigest() != file.sha256:
                raise AvatarInvalid(
                    f"{file.path} of avatar {avatar} is damaged in the store: {at} bytes, expected"
                    f" are {file.size_bytes} with the SHA-256 {file.sha256[:SHORT_DIGITS]}…"
                )
            stream.flush()
            if flushed:
                os.fsync(stream.fileno())
        temporary.replace(target)
    except NotFound:
        raise NotFound(f"{file.path} of avatar {avatar} is missing in the store") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
