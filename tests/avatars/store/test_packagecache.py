"""Versions of avatars on this machine's disk."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.avatars.store.test_pushing import contents
from tests.conftest import PackageFactory
from tests.support.s3server import S3Server
from tests.support.waiting import until

from lipwire.avatars import Avatar, Part
from lipwire.avatars.store import fetching, packagecache, pushing
from lipwire.avatars.store.cacheindex import folder_bytes
from lipwire.avatars.store.layout import Published, StoredFile, file_key, manifest_key
from lipwire.avatars.store.packagecache import PackageCache, compiled_bytes, folder_of
from lipwire.domain import (
    AvatarInvalid,
    InvalidInput,
    NotFound,
    Overloaded,
    StorageFailed,
    Unavailable,
)
from lipwire.stores.objects import ObjectStore

MIB = 1024 * 1024
NewCache = Callable[..., PackageCache]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def new_cache(tmp_path: Path) -> Iterator[NewCache]:
    made: list[PackageCache] = []

    def new(max_bytes: int = 1000 * MIB, belongs_to: str = "") -> PackageCache:
        made.append(PackageCache(tmp_path / "cache", max_bytes, belongs_to=belongs_to))
        return made[-1]

    yield new
    for cache in made:
        cache.close()


@pytest.fixture
def version(store: ObjectStore, avatar_package: Path) -> str:
    return pushing.push(store, "anna", avatar_package).version


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have every store be away from now on."""

    def gone(*arguments: object) -> bytes:
        raise Unavailable("the avatar store cannot be asked: away")

    return lambda: monkeypatch.setattr(ObjectStore, "read_range", gone)


def test_a_version_is_opened_from_the_cache_as_from_its_folder(
    store: ObjectStore, version: str, new_cache: NewCache, avatar_package: Path
) -> None:
    cache = new_cache()
    parts: frozenset[Part] = frozenset({"jpeg", "planes", "pixels"})
    mouth = np.full((320, 320, 3), 90, np.uint8)
    with (
        cache.hold(store, "anna", version) as held,
        Avatar.open(held.files, parts=parts) as stored,
        Avatar.open(avatar_package, parts=parts) as plain,
    ):
        held.measure()
        assert held.files.folder is not None
        assert held.files.compiled is not None
        assert contents(held.files.folder) == contents(avatar_package)
        assert stored.revision == plain.revision
        assert stored.name == "anna"
        for number in range(stored.frame_count):
            assert stored.jpeg(number, mouth) == plain.jpeg(number, mouth)
            assert np.array_equal(stored.planes(number, mouth), plain.planes(number, mouth))
            assert np.array_equal(stored.crop(number), plain.crop(number))
        home = cache.folder / folder_of("anna", version)
        assert stored.model_path.is_relative_to(held.files.compiled)
        assert sorted(each.name for each in home.iterdir()) == ["anna", "compiled", "manifest.json"]
        assert cache.index.total_bytes() == folder_bytes(home)


def test_what_is_compiled_is_expected_and_not_much_less(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    with new_cache().hold(store, "anna", version) as held:
        assert held.files.folder is not None
        assert held.files.compiled is not None
        wanted = compiled_bytes(held.files.folder, folder_bytes(held.files.folder))
        with Avatar.open(held.files, parts=frozenset({"jpeg"})):
            assert wanted / 4 <= folder_bytes(held.files.compiled) <= wanted


def test_a_cache_is_used_again_without_the_store(
    store: ObjectStore, version: str, new_cache: NewCache, away: Callable[[], None]
) -> None:
    new_cache().hold(store, "anna", version).close()
    away()
    cache = new_cache()
    assert cache.has("anna", version)
    with cache.hold(store, "anna", version) as held, Avatar.open(held.files):
        assert cache.done.packages == 0
    with pytest.raises(Unavailable, match="away"):
        cache.hold(store, "zoe", version)
    assert not cache.has("zoe", version)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\0" * path.stat().st_size),
        lambda path: path.unlink(),
        lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["cut", "other", "gone", "link", "folder"],
)
@pytest.mark.parametrize("name", ["checkpoint/model_best.onnx", "crop_rects.json"])
def test_a_file_that_is_damaged_in_the_cache_is_fetched_again(
    store: ObjectStore,
    version: str,
    new_cache: NewCache,
    avatar_package: Path,
    damage: Callable[[Path], object],
    name: str,
) -> None:
    with new_cache().hold(store, "anna", version) as held:
        assert held.files.folder is not None
        folder = held.files.folder
    damage(folder / name)
    cache = new_cache()
    with cache.hold(store, "anna", version):
        assert contents(folder) == contents(avatar_package)
        assert cache.done.packages == 1
        assert cache.done.bytes == (avatar_package / name).stat().st_size


def test_what_is_damaged_is_not_served_while_the_store_is_away(
    store: ObjectStore, version: str, new_cache: NewCache, away: Callable[[], None]
) -> None:
    with new_cache().hold(store, "anna", version) as held:
        assert held.files.folder is not None
        (held.files.folder / "crop_rects.json").write_text("{}")
    away()
    with pytest.raises(Unavailable):
        new_cache().hold(store, "anna", version)


def test_a_damaged_manifest_is_fetched_again(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    cache = new_cache()
    cache.hold(store, "anna", version).close()
    (cache.folder / folder_of("anna", version) / "manifest.json").write_text("{}")
    new_cache().hold(store, "anna", version).close()


def test_many_at_once_download_it_once(
    store: ObjectStore, version: str, new_cache: NewCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = [new_cache(), new_cache()]
    fetched: list[int] = []
    fetch = fetching.fetch

    def counting(*arguments: object, **options: object) -> None:
        fetched.append(1)
        fetch(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("lipwire.avatars.store.packagecache.fetch", counting)
    with ThreadPoolExecutor(8) as threads:
        held = list(
            threads.map(lambda number: caches[number % 2].hold(store, "anna", version), range(16))
        )
    assert len(fetched) == 1
    for each in held:
        each.close()
        each.close()
    assert caches[0].index.forget("anna") == 0


def test_others_are_not_held_up_by_a_download(
    store: ObjectStore,
    make_package: PackageFactory,
    new_cache: NewCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = pushing.push(store, "here", make_package(tmp_path / "here")).version
    slow = pushing.push(store, "slow", make_package(tmp_path / "slow", seed=1)).version
    cache = new_cache()
    cache.hold(store, "here", here).close()
    begun, go_on = threading.Event(), threading.Event()
    read_range = ObjectStore.read_range

    def waiting(self: ObjectStore, key: str, start: int, end: int) -> bytes:
        if "/slow/files/" in key:
            begun.set()
            assert go_on.wait(60)
        return read_range(self, key, start, end)

    monkeypatch.setattr(ObjectStore, "read_range", waiting)
    with ThreadPoolExecutor(1) as threads:
        future = threads.submit(cache.hold, store, "slow", slow)
        assert begun.wait(60)
        cache.hold(store, "here", here).close()
        assert not future.done()
        go_on.set()
        future.result(60).close()


@pytest.mark.slow
def test_the_budget_holds_at_all_times(
    store: ObjectStore, make_package: PackageFactory, new_cache: NewCache, tmp_path: Path
) -> None:
    versions = {
        name: pushing.push(store, name, make_package(tmp_path / name, seed=seed)).version
        for seed, name in enumerate("abcdef")
    }
    budget = 20 * MIB  # two, as they are expected to be
    cache = new_cache(budget)
    seen: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            seen.append(folder_bytes(cache.folder / "packages"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(2):
            for name, version in versions.items():
                with cache.hold(store, name, version) as held, Avatar.open(held.files):
                    held.measure()
                    seen.append(cache.index.total_bytes())
    finally:
        ended.set()
        watcher.join()
    assert 4 * MIB < max(seen) <= budget
    assert cache.done.packages > 6
    assert cache.names()[-1] == "f"


def test_where_all_is_open_room_is_asked_for(
    store: ObjectStore, make_package: PackageFactory, new_cache: NewCache, tmp_path: Path
) -> None:
    one = pushing.push(store, "a", make_package(tmp_path / "a")).version
    two = pushing.push(store, "b", make_package(tmp_path / "b", seed=1)).version
    cache = new_cache(10 * MIB)
    held = [cache.hold(store, "a", one)]

    def close_one() -> bool:
        if not held:
            return False
        held.pop().close()
        return True

    cache.make_room = close_one
    with cache.hold(store, "b", two):
        assert cache.names() == ["b"]


def test_where_all_is_in_use_it_is_said(
    store: ObjectStore,
    make_package: PackageFactory,
    new_cache: NewCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = pushing.push(store, "a", make_package(tmp_path / "a")).version
    two = pushing.push(store, "b", make_package(tmp_path / "b", seed=1)).version
    cache = new_cache(10 * MIB)
    monkeypatch.setattr(packagecache, "_ROOM_WAIT_S", 0.0)
    with cache.hold(store, "a", one), pytest.raises(Overloaded, match=r"store\.cache_gb"):
        cache.hold(store, "b", two)
    with pytest.raises(StorageFailed, match=r"needs \d+ bytes in the cache; allowed are"):
        new_cache(1 * MIB).hold(store, "b", two)


def test_a_full_disk_makes_room_and_then_says_so(
    store: ObjectStore,
    make_package: PackageFactory,
    new_cache: NewCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    versions = [
        pushing.push(store, name, make_package(tmp_path / name, seed=seed)).version
        for seed, name in enumerate("abc")
    ]
    cache = new_cache()
    cache.hold(store, "a", versions[0]).close()
    held = cache.hold(store, "b", versions[1])
    disk = 200 * MIB

    def usage(path: object) -> Usage:
        taken = folder_bytes(cache.folder / "packages") + 130 * MIB
        return Usage(disk, taken, disk - taken)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with cache.hold(store, "c", versions[2]):
        assert cache.names() == ["b", "c"]
    disk = 130 * MIB + folder_bytes(cache.folder / folder_of("b", versions[1])) + MIB
    with pytest.raises(StorageFailed, match="the disk of the avatar cache is full"):
        cache.hold(store, "a", versions[0])
    assert cache.names()[-1] == "b"
    held.close()


def test_a_disk_that_others_fill_meanwhile_is_tried_once_more(
    store: ObjectStore,
    make_package: PackageFactory,
    new_cache: NewCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = pushing.push(store, "a", make_package(tmp_path / "a")).version
    two = pushing.push(store, "b", make_package(tmp_path / "b", seed=1)).version
    cache = new_cache()
    cache.hold(store, "a", one).close()
    bring = fetching._bring

    def full(
        store: ObjectStore, avatar: str, file: StoredFile, target: Path, flushed: bool
    ) -> None:
        if cache.index.entry(folder_of("a", one)) is not None or avatar == "never":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        bring(store, avatar, file, target, flushed)

    monkeypatch.setattr(fetching, "_bring", full)
    with cache.hold(store, "b", two) as held:
        assert held.files.folder is not None
        assert contents(held.files.folder)
    assert cache.names() == ["b"]
    three = pushing.push(store, "never", make_package(tmp_path / "c", seed=2)).version
    with cache.hold(store, "b", two), pytest.raises(StorageFailed, match="No space left"):
        cache.hold(store, "never", three)


def test_a_version_that_the_store_does_not_have_leaves_nothing_open(
    store: ObjectStore, version: str, new_cache: NewCache
) -> None:
    cache = new_cache()
    manifest = pushing.read_manifest(store, "anna", version)
    with pytest.raises(NotFound, match="has no version 000000000000"):
        cache.hold(store, "anna", "0" * 64)
    store.write(manifest_key("anna", version), b"{}")
    with pytest.raises(AvatarInvalid, match="not the one it is named by"):
        cache.hold(store, "anna", version)
    store.write(manifest_key("anna", version), manifest.to_bytes())
    store.write(file_key("anna", manifest.files[0].sha256), b"hostile")
    with pytest.raises(AvatarInvalid, match="is damaged in the store"):
        cache.hold(store, "anna", version)
    assert cache.index.forget("anna") == 0
    assert cache.done.failures == 1


@pytest.mark.slow
def test_a_download_that_is_killed_goes_on(
    s3: S3Server, avatar_package: Path, new_cache: NewCache, tmp_path: Path
) -> None:
    url = s3.new_url()
    store = ObjectStore(url, endpoint_url=s3.endpoint_url)
    for number in range(30):
        (avatar_package / f"more-{number}.bin").write_bytes(os.urandom(2 * MIB))
    version = pushing.push(store, "anna", avatar_package).version
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from lipwire.avatars.store.packagecache import PackageCache\n"
        "from lipwire.stores.objects import ObjectStore\n"
        "store = ObjectStore(sys.argv[2], endpoint_url=sys.argv[3])\n"
        "PackageCache(Path(sys.argv[1]), 1 << 30).hold(store, 'anna', sys.argv[4])\n"
    )
    folder = tmp_path / "cache"
    command = [sys.executable, "-c", program, str(folder), url, s3.endpoint_url, version]
    with subprocess.Popen(command) as process:
        package = folder / folder_of("anna", version) / "anna"
        until(lambda: list(package.glob("*.bin")) or process.poll() is not None)
        process.send_signal(signal.SIGSTOP)
        there = {path for path in package.rglob("*") if path.is_file()}
        process.kill()
    assert 0 < len(there) < 41
    cache = new_cache()
    with cache.hold(store, "anna", version) as held:
        assert held.files.folder is not None
        assert contents(held.files.folder) == contents(avatar_package)
        assert {path.name for path in package.glob(".*")} == set()
    whole = {
        each.path: each.size_bytes for each in pushing.read_manifest(store, "anna", version).files
    }
    kept = sum(whole.get(path.relative_to(package).as_posix(), 0) for path in there)
    assert 0 < cache.done.bytes <= sum(whole.values()) - kept


def test_what_was_published_is_remembered(new_cache: NewCache, version: str) -> None:
    cache = new_cache()
    assert cache.remembered("anna") is None
    cache.remember("anna", Published(version))
    assert new_cache().remembered("anna") == Published(version)
    next((cache.folder / "pointers").iterdir()).write_bytes(b"{")
    assert cache.remembered("anna") is None
    cache.forget("anna")
    assert list((cache.folder / "pointers").iterdir()) == []


def test_a_cache_is_of_one_store(new_cache: NewCache) -> None:
    new_cache(belongs_to="s3://one/avatars")
    new_cache(belongs_to="s3://one/avatars")
    with pytest.raises(InvalidInput, match=r"has avatars of s3://one/avatars; give s3://two"):
        new_cache(belongs_to="s3://two")


def test_names_that_disks_do_not_tell_apart_have_folders_of_their_own() -> None:
    names = ["anna", "Anna", "x" * 128, "x" * 127 + "y", "ä" * 128, "%41nna", "con"]
    folders = {folder_of(name, "0" * 64).casefold() for name in names}
    assert len(folders) == len(names)
    assert max(len(part) for folder in folders for part in folder.split("/")) < 150
