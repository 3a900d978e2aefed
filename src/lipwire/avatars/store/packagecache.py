"""Versions of avatars on this machine's disk, within a budget: where those in use lie.

    packages/NAME/VERSION/manifest.json     what was downloaded
                          NAME/             the package, which avatars are opened from
                          compiled/         what was compiled of it
    pointers/NAME.json                      what was published when the store was last asked

An entry is looked at, file by file, when a process first opens it, and what is missing or another
one is fetched. Whoever does that holds the lock of the entry, so that of several processes, and of
several threads, one does it.
"""

import errno
import hashlib
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock

from lipwire.avatars.checks.problems import Findings
from lipwire.avatars.locating import read_file
from lipwire.avatars.rectangles import MAX_RECTANGLES_BYTES, parse_rectangles
from lipwire.avatars.store import compiledparts
from lipwire.avatars.store.cacheindex import PACKAGES, CacheIndex, Entry, folder_bytes
from lipwire.avatars.store.fetching import fetch, missing_files, remove_others
from lipwire.avatars.store.layout import (
    MAX_MANIFEST_BYTES,
    MAX_POINTER_BYTES,
    Manifest,
    Published,
    StoredFile,
    parse_manifest,
    parse_published,
    written,
)
from lipwire.avatars.store.pushing import read_manifest
from lipwire.domain import (
    AvatarFiles,
    AvatarInvalid,
    InvalidInput,
    LipwireError,
    Overloaded,
    StorageFailed,
    newfiles,
)
from lipwire.domain.avatarfiles import RECTANGLES_NAME
from lipwire.domain.closing import Closing
from lipwire.engine.keyedlocks import KeyedLocks
from lipwire.stores.objects import ObjectStore

_LOG: Final = logging.getLogger("lipwire.avatars")
_MANIFEST: Final = "manifest.json"
_COMPILED: Final = "compiled"
_POINTERS: Final = "pointers"
_LOCKS: Final = "locks"
_STORE: Final = "store"
"""The file that names the store whose avatars lie there."""
_VERSION_DIGITS: Final = 32
_NAME_BYTES: Final = 120
_PATCH_BORDER_PX: Final = 24
"""How far a patch reaches beyond its rectangle, on both sides together, at most about."""
_JPEG_BYTES_A_PIXEL: Final = 0.25
_MOST_FRAMES: Final = 100_000
_SPARE_BYTES: Final = 64 * 1024 * 1024
"""What stays free on the disk, for logs and whatever else is written there."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROOM_WAIT_S: Final = 5.0
"""How long is waited for other processes to close what they do not use."""
_ROOM_STEP_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Downloads:
    """What was done since the cache was opened: ``packages``, how many versions were downloaded, at
    least in part, and their ``bytes``; ``failures``, how many downloads failed; and ``mended``, how
    many files were found damaged in the cache and were fetched again."""

    packages: int = 0
    bytes: int = 0
    failures: int = 0
    mended: int = 0


@dataclass(slots=True)
class HeldPackage(Closing):
    """A version that is pinned in the cache: where its ``files`` lie, and the name of the
    ``version``. A context manager: ``close`` ends the pin, so that the version may be evicted.
    Methods may be called from any thread."""

    files: AvatarFiles
    version: str
    _release: Callable[[], None]
    _measure: Callable[[], None] = lambda: None
    _closed: bool = field(default=False)

    def measure(self) -> None:
        """Measure how many bytes the version now takes on the disk, for the cache's budget; to be
        called after the avatar was opened, because opening may have compiled it. Where the cache
        shares compiled forms, it begins to send this one to the store, in another thread, unless
        the versions that are open take more than the budget. Raises StorageFailed where the cache's
        index cannot be written."""
        self._measure()

    def close(self) -> None:
        """Measure the version once more and give it up: it may be evicted from then on. Closing
        twice is allowed."""
        if not self._closed:
            self._closed = True
            self._release()


class PackageCache(Closing):
    """Versions of avatars in a folder of this machine, at most so many bytes. Thread-safe; several
    processes may use one folder, with one budget. A context manager.

        with cache.hold(store, "anna", version) as held:
            Avatar.open(held.files)

    ``index`` knows the entries. ``make_room`` may be set by whoever opens avatars: it is called
    without arguments where versions that are open leave no room for another, and returns whether it
    has closed an avatar.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        *,
        downloads: int = 4,
        belongs_to: str = "",
        shares_compiled: bool = False,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``folder`` is made where it is missing. ``max_bytes`` is the most bytes that the files of
        all versions in it may have, with their compiled forms, whichever process brought them. At
        most ``downloads`` versions are fetched at a time. ``belongs_to`` is the store's URL, or
        another text that tells it from others: a folder is for one store alone. With
        ``shares_compiled`` what is compiled is taken from the store, and brought there.
        ``clock_ns`` is the wall clock's time in nanoseconds. Raises InvalidInput where the folder
        belongs to another store, and StorageFailed where it cannot be written to."""
        self.index: Final = CacheIndex(folder, max_bytes, scan=_scanned, clock_ns=clock_ns)
        self.folder: Final = folder
        self.make_room: Callable[[], bool] = lambda: False
        """Called where too much is open; returns whether something was closed. Whoever opens
        avatars may set another."""
        self._downloads = threading.BoundedSemaphore(downloads)
        self._locks = KeyedLocks()
        self._lock = threading.Lock()
        self._shares_compiled = shares_compiled
        self._brought: set[str] = set()
        """The entries whose compiled form is in the store, by folder."""
        self._bringing = ThreadPoolExecutor(1, thread_name_prefix="lipwire-share")
        self._sound: dict[str, str] = {}
        """The entries that this process has looked at, by folder: which making of it."""
        self._done = Downloads()
        with newfiles.storage_errors(folder):
            for each in (_POINTERS, _LOCKS):
                (folder / each).mkdir(exist_ok=True)
            _check_owner(folder / _STORE, belongs_to)

    def close(self) -> None:
        """Give up what this process has pinned. Waits for a compiled form that is being sent to the
        store; others are not sent any more."""
        self._bringing.shutdown(wait=True, cancel_futures=True)
        self.index.close()

    def hold(self, store: ObjectStore, name: str, version: str) -> HeldPackage:
        """Return ``version``, its whole name, of the avatar ``name``, pinned; files that are
        missing or damaged are downloaded from ``store`` first, and the call waits for that. Where
        another thread or process fetches the same version, it waits for that one. The caller closes
        what is returned.

        Raises Unavailable where something is missing and the store is away, AvatarInvalid where
        what the store has is damaged or refused, NotFound where it has no such version or lacks a
        file of it; Overloaded where too much is open, after having called ``make_room`` and waited
        for some seconds; and StorageFailed where the disk, or the budget, is too small.
        """
        folder = folder_of(name, version)
        with self._locks.held(folder), self._locked(folder):
            manifest = self._manifest(folder, name, version)
            known = manifest is not None
            if manifest is None:
                manifest = read_manifest(store, name, version)
            measured = self.index.known_bytes(folder)
            size_bytes = manifest.size_bytes + len(manifest.to_bytes())
            entry = self._pinned(folder, manifest, version, max(size_bytes, measured or 0))
            try:
                self._complete(store, entry, manifest, known)
                if measured is None:
                    # Now there are crop rectangles by which it can be told.
                    package = self.folder / folder / name
                    size_bytes += compiled_bytes(package, manifest.size_bytes)
                    wanted = min(size_bytes, self.index.max_bytes)
                    self._pinned(folder, manifest, version, wanted)
                    self.index.unpin(folder)
                home = self.folder / folder
                files = AvatarFiles(folder=home / name, compiled=home / _COMPILED)
                if self._shares_compiled and not _has_parts(home / _COMPILED):
                    self._take_compiled(store, name, version, files)
            except BaseException:
                self.index.unpin(folder)
                raise

        def measure() -> None:
            self._measure(folder)
            if self._shares_compiled and folder not in self._brought:
                self._bring_compiled(store, name, version, folder)

        def release() -> None:
            with suppress(LipwireError):
                self._measure(folder)
            self.index.unpin(folder)

        return HeldPackage(files, version, release, measure)

    def has(self, name: str, version: str) -> bool:
        """Return whether ``version`` of the avatar ``name`` is in the cache; its files are not
        checked, and may be damaged or incomplete. Raises StorageFailed where the index cannot be
        read."""
        folder = folder_of(name, version)
        return (
            self.index.entry(folder) is not None
            and self._manifest(folder, name, version) is not None
        )

    def forget(self, name: str) -> int:
        """Remove what the cache has of the avatar ``name``, except for versions that any process
        has open; return how many versions are left. Where that is not 0, call this again later."""
        with suppress(OSError):
            self._pointer(name).unlink()
        return self.index.forget(name)

    def remember(self, name: str, now: Published) -> None:
        """Keep ``now``, what is published of the avatar ``name``, in the cache's folder, for
        ``remembered`` when the store is away. Where it cannot be written nothing is raised."""
        with suppress(OSError):
            path = self._pointer(name)
            data = now.to_bytes()
            if not path.exists() or path.read_bytes() != data:
                with newfiles.new_file(path) as stream:
                    stream.write(data)

    def remembered(self, name: str) -> Published | None:
        """Return what ``remember`` last kept for the avatar ``name``, in this process or another;
        None where there is nothing, or it is damaged."""
        try:
            data = self._pointer(name).read_bytes()
            return parse_published(data[:MAX_POINTER_BYTES], name)
        except (OSError, AvatarInvalid):
            return None

    def names(self) -> list[str]:
        """Return the names of the avatars of which a version is in the cache, in alphabetical
        order."""
        return sorted({each.name for each in self.index.entries()})

    @property
    def done(self) -> Downloads:
        """What was downloaded since the cache was opened."""
        return self._done

    # -- an entry --------------------------------------------------------------------------------

    def _pinned(self, folder: str, manifest: Manifest, version: str, size_bytes: int) -> Entry:
        """The entry with room for ``size_bytes``, pinned once more."""
        until_s = time.monotonic() + _ROOM_WAIT_S
        while True:
            try:
                return self.index.pin(folder, manifest.avatar, version, size_bytes)
            except Overloaded:
                # This process may have avatars open that nobody uses, and so may others.
                if self.make_room():
                    continue
                if time.monotonic() >= until_s:
                    raise
            time.sleep(_ROOM_STEP_S)

    def _complete(self, store: ObjectStore, entry: Entry, manifest: Manifest, known: bool) -> None:
        """Have all files there, each with the right hash."""
        if self._sound.get(entry.folder) == entry.made:
            return
        home = self.folder / entry.folder
        package = home / manifest.avatar
        with newfiles.storage_errors(home):
            package.mkdir(parents=True, exist_ok=True)
            if not known:
                newfiles.write_file(home / _MANIFEST, manifest.to_bytes())
            remove_others(package, manifest)
            lost = missing_files(package, manifest)
            if lost:
                self._fetch(store, manifest, package, lost)
        with self._lock:
            self._sound[entry.folder] = entry.made

    def _fetch(
        self, store: ObjectStore, manifest: Manifest, package: Path, lost: list[StoredFile]
    ) -> None:
        size_bytes = sum(each.size_bytes for each in lost)
        damaged = sum((package / each.path).exists() for each in lost)
        if damaged:
            _LOG.warning(
                "avatar %s: %d files in the cache are damaged, and are fetched again",
                manifest.avatar,
                damaged,
                extra={"model": manifest.avatar},
            )
        self._make_space(size_bytes)
        try:
            with self._downloads:
                try:
                    fetch(store, manifest, package, lost, flushed=False)
                except OSError as error:
                    # Somebody else has filled the disk meanwhile.
                    if error.errno not in _FULL or not self.index.free(size_bytes):
                        raise
                    again = missing_files(package, manifest)
                    fetch(store, manifest, package, again, flushed=False)
        except BaseException:
            self._count(failures=1)
            raise
        self._count(packages=1, size_bytes=size_bytes, mended=damaged)
        _LOG.info(
            "avatar %s: %d files, %.1f MB, downloaded from the store",
            manifest.avatar,
            len(lost),
            size_bytes / 1e6,
            extra={"model": manifest.avatar},
        )

    def _take_compiled(
        self, store: ObjectStore, name: str, version: str, files: AvatarFiles
    ) -> None:
        """What cannot be had is compiled here."""
        try:
            count = compiledparts.take(store, name, version, files)
        except (LipwireError, OSError) as error:
            _LOG.warning("avatar %s: compiled here: %s", name, error, extra={"model": name})
        else:
            if count:
                _LOG.info("avatar %s: %d compiled parts from the store", name, count)

    def _bring_compiled(self, store: ObjectStore, name: str, version: str, folder: str) -> None:
        """Beside the requests; the entry stays meanwhile."""
        self._brought.add(folder)
        try:
            self.index.pin(folder, name, version, 0)
        except Overloaded:
            self._brought.discard(folder)  # it is sent when the avatar is opened again
            return

        def work() -> None:
            try:
                compiledparts.bring(store, name, version, self.folder / folder / _COMPILED)
            except (LipwireError, OSError) as error:
                self._brought.discard(folder)
                _LOG.warning("avatar %s: what is compiled is not in the store: %s", name, error)
            finally:
                self.index.unpin(folder)

        try:
            self._bringing.submit(work)
        except RuntimeError:  # it is being closed
            self.index.unpin(folder)

    def _make_space(self, size_bytes: int) -> None:
        """Evict what is not open where the disk has no room for so many bytes. Raises
        StorageFailed where that is not enough."""
        wanted = size_bytes + _SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if free >= wanted:
            return
        self.index.free(wanted - free)
        free = shutil.disk_usage(self.folder).free
        if free < size_bytes:
            raise StorageFailed(
                f"the disk of the avatar cache is full: {free} bytes are free, {size_bytes} are"
                " needed"
            )

    def _measure(self, folder: str) -> None:
        size_bytes = folder_bytes(self.folder / folder)
        if not self.index.resize(folder, size_bytes):
            _LOG.warning(
                "%s takes %d bytes, and what is open more than the cache may (store.cache_gb)",
                folder,
                size_bytes,
            )

    def _manifest(self, folder: str, name: str, version: str) -> Manifest | None:
        """The one that lies there; None where there is none, or it is damaged."""
        path = self.folder / folder / _MANIFEST
        try:
            if not path.is_file() or path.stat().st_size > MAX_MANIFEST_BYTES:
                return None
            return parse_manifest(path.read_bytes(), name, version)
        except (OSError, AvatarInvalid):
            return None

    @contextmanager
    def _locked(self, folder: str) -> Iterator[None]:
        digest = hashlib.blake2b(folder.encode(), digest_size=12).hexdigest()
        with (
            newfiles.storage_errors(self.folder),
            FileLock(self.folder / _LOCKS / digest, thread_local=False),
        ):
            yield

    def _pointer(self, name: str) -> Path:
        return self.folder / _POINTERS / f"{_short(name)}.json"

    def _count(
        self, *, packages: int = 0, size_bytes: int = 0, failures: int = 0, mended: int = 0
    ) -> None:
        with self._lock:
            done = self._done
            self._done = Downloads(
                done.packages + packages,
                done.bytes + size_bytes,
                done.failures + failures,
                done.mended + mended,
            )


def folder_of(name: str, version: str) -> str:
    """Return the folder of ``version`` of the avatar ``name``, relative to the cache's, with
    forward slashes."""
    return f"{PACKAGES}/{_short(name)}/{version[:_VERSION_DIGITS]}"


def _has_parts(compiled: Path) -> bool:
    return compiled.is_dir() and any(not each.name.startswith(".") for each in compiled.iterdir())


def _check_owner(path: Path, store: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(store)
    except FileExistsError:
        other = path.read_text(encoding="utf-8")
        if other not in ("", store):
            raise InvalidInput(
                f"the cache in {path.parent} has avatars of {other}; give {store} another folder"
                " (store.cache_folder)"
            ) from None


def compiled_bytes(package: Path, size_bytes: int) -> int:
    """Return an estimate of the most bytes that the compiled form of the package in the folder
    ``package`` has, whose files have ``size_bytes`` bytes together: the pixels round each
    rectangle, the frames as JPEG files, the network. Only the crop rectangles of the package are
    read; 0 is returned where they cannot be."""
    data = read_file(package / RECTANGLES_NAME, "", MAX_RECTANGLES_BYTES, findings := Findings())
    rects = None if data is None else parse_rectangles(data, findings, first_frame=None)
    if not rects:
        return 0
    shown = rects[:_MOST_FRAMES]
    border = _PATCH_BORDER_PX
    pixels = sum(3 * (each.width + border) * (each.height + border) for each in shown)
    # Faces are about in the middle, so that this is about where frames end.
    width = max(each.x2 for each in shown) + min(each.x1 for each in shown)
    height = max(each.y2 for each in shown) + min(each.y1 for each in shown)
    pictures = len(shown) * width * height * _JPEG_BYTES_A_PIXEL
    return int(pixels + pictures) + size_bytes


def _short(name: str) -> str:
    """The name of a folder that no other avatar has, also on a disk that does not tell capitals
    from small letters, and not too long for any."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{written(name)[:_NAME_BYTES].rstrip(' %')}-{digest}"


def _scanned(folder: Path) -> tuple[str, str] | None:
    """Whose version lies in ``folder``, as its manifest says."""
    try:
        data = (folder / _MANIFEST).read_bytes()
        name = json.loads(data)["avatar"]
        version = hashlib.sha256(data).hexdigest()
        parse_manifest(data, name, version)
    except (OSError, ValueError, TypeError, KeyError, AvatarInvalid):
        return None
    where = folder.parent.parent.parent / folder_of(name, version)
    return (name, version) if where == folder else None
