"""Room in a cache folder that several processes share."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lipwire.avatars.store.cacheindex import CacheIndex, folder_bytes
from lipwire.domain import LipwireError, Overloaded, StorageFailed

NewIndex = Callable[..., CacheIndex]


@pytest.fixture
def new_index(tmp_path: Path) -> Iterator[NewIndex]:
    """``new_index(100)``: one of the same folder, with that many bytes; its time is one of uses."""
    made: list[CacheIndex] = []
    times = iter(range(1, 1_000_000))

    def scan(folder: Path) -> tuple[str, str] | None:
        return (folder.parent.name, folder.name) if (folder / "data").exists() else None

    def new(max_bytes: int = 100) -> CacheIndex:
        index = CacheIndex(tmp_path / "cache", max_bytes, scan=scan, clock_ns=lambda: next(times))
        made.append(index)
        return index

    yield new
    for index in made:
        index.close()


def put(index: CacheIndex, name: str, size_bytes: int) -> Path:
    """Pin an entry and write its files."""
    folder = f"packages/{name}/1"
    index.pin(folder, name, "1", size_bytes)
    path = index.folder / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "data").write_bytes(b"x" * size_bytes)
    return path


def names(index: CacheIndex) -> list[str]:
    return [entry.name for entry in index.entries()]


def test_what_was_not_used_for_longest_goes_first(new_index: NewIndex) -> None:
    index = new_index(100)
    folders = {name: put(index, name, 30) for name in "abc"}
    for name in "bca":
        index.unpin(f"packages/{name}/1")
    put(index, "d", 40)
    assert names(index) == ["c", "a", "d"]
    assert not folders["b"].exists()
    assert index.total_bytes() == 100 == folder_bytes(index.folder / "packages")
    assert list((index.folder / "removed").iterdir()) == []


def test_what_is_open_stays(new_index: NewIndex) -> None:
    index = new_index(100)
    for name in "ab":
        put(index, name, 50)
    with pytest.raises(Overloaded, match="too many belong to avatars that are open") as error:
        index.pin("packages/c/1", "c", "1", 1)
    assert error.value.retry_after_s
    assert names(index) == ["a", "b"]
    index.pin("packages/a/1", "a", "1", 50)
    index.unpin("packages/a/1")
    with pytest.raises(Overloaded):
        index.pin("packages/c/1", "c", "1", 1)
    index.unpin("packages/a/1")
    put(index, "c", 1)
    assert names(index) == ["b", "c"]


def test_nothing_goes_for_what_does_not_fit_anyway(new_index: NewIndex) -> None:
    index = new_index(100)
    put(index, "a", 60)
    put(index, "b", 30)
    index.unpin("packages/b/1")
    with pytest.raises(Overloaded):
        index.pin("packages/c/1", "c", "1", 50)
    assert names(index) == ["a", "b"]


def test_what_is_larger_than_the_budget_is_refused_at_once(new_index: NewIndex) -> None:
    index = new_index(100)
    put(index, "a", 60)
    index.unpin("packages/a/1")
    with pytest.raises(StorageFailed, match=r"needs 101 bytes in the cache; allowed are 100"):
        index.pin("packages/c/1", "c", "1", 101)
    assert names(index) == ["a"]


def test_a_size_that_was_measured_counts(new_index: NewIndex) -> None:
    index = new_index(100)
    for name in "ab":
        put(index, name, 20)
    index.unpin("packages/a/1")
    assert index.resize("packages/b/1", 60)
    assert (index.total_bytes(), names(index)) == (80, ["b", "a"])
    assert index.resize("packages/b/1", 90)
    assert (index.total_bytes(), names(index)) == (90, ["b"])
    assert not index.resize("packages/b/1", 110)
    assert index.known_bytes("packages/b/1") == 110
    assert index.known_bytes("packages/a/1") is None


def test_what_another_process_has_open_stays(new_index: NewIndex) -> None:
    one, two = new_index(100), new_index(100)
    put(one, "a", 60)
    with pytest.raises(Overloaded):
        put(two, "b", 60)
    assert one.wanted_bytes() == 60 - 40
    assert two.wanted_bytes() == 0
    one.unpin("packages/a/1")
    put(two, "b", 60)
    assert names(one) == ["b"]
    assert one.wanted_bytes() == 0


def test_a_process_that_ended_has_nothing_open(new_index: NewIndex) -> None:
    one, two = new_index(100), new_index(100)
    put(one, "a", 60)
    one.close()
    put(two, "b", 60)
    assert names(two) == ["b"]


@pytest.mark.slow
def test_a_process_that_is_killed_has_nothing_open(new_index: NewIndex, tmp_path: Path) -> None:
    index = new_index(100)
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from lipwire.avatars.store.cacheindex import CacheIndex\n"
        "index = CacheIndex(Path(sys.argv[1]), 100, scan=lambda folder: None)\n"
        "index.pin('packages/a/1', 'a', '1', 60)\n"
        "print('pinned', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(index.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"pinned\n"
        with pytest.raises(Overloaded):
            index.pin("packages/b/1", "b", "1", 60)
        process.kill()
    put(index, "b", 60)
    assert names(index) == ["b"]


def test_what_a_killed_process_was_removing_is_removed(new_index: NewIndex) -> None:
    one = new_index(100)
    put(one, "a", 60)
    one.unpin("packages/a/1")
    with one._lock, one._transaction() as db:
        going, _ = one._evict(db, 60, sparing="")
    one.close()
    two = new_index(100)
    assert (two.folder / going[0]).is_dir()
    assert two.total_bytes() == 60
    put(two, "b", 100)
    assert not (two.folder / going[0]).exists()


@pytest.mark.parametrize("damage", [b"", b"no index at all" * 1000, None])
def test_a_damaged_index_is_made_anew(new_index: NewIndex, damage: bytes | None) -> None:
    one = new_index(100)
    put(one, "a", 30)
    put(one, "b", 20)
    (one.folder / "packages" / "c" / "1").mkdir(parents=True)
    (one.folder / "packages" / "c" / "1" / "half").write_bytes(b"x" * 10)
    one.close()
    path = one.folder / "index.sqlite"
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    two = new_index(100)
    assert sorted(names(two)) == ["a", "b"]
    assert two.total_bytes() == 60
    put(two, "d", 60)
    assert two.total_bytes() <= 100
    assert not (two.folder / "packages" / "c" / "1").exists()


def test_a_folder_that_is_removed_meanwhile_is_made_anew(new_index: NewIndex) -> None:
    index = new_index(100)
    put(index, "a", 30)
    put(index, "b", 30)
    index.unpin("packages/b/1")
    shutil.rmtree(index.folder)
    assert names(index) == ["a"]
    put(index, "c", 30)
    other = new_index(100)
    with pytest.raises(Overloaded):
        put(other, "d", 50)
    assert sorted(names(other)) == ["a", "c"]


def test_an_avatar_is_forgotten_when_nobody_has_it_open(new_index: NewIndex) -> None:
    index = new_index(100)
    path = put(index, "a", 30)
    assert index.forget("a") == 1
    assert path.exists()
    index.unpin("packages/a/1")
    assert index.forget("a") == 0
    assert not path.exists()
    assert index.total_bytes() == 0


def test_a_cache_is_for_its_user_alone(new_index: NewIndex) -> None:
    assert new_index().folder.stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="file"):
        CacheIndex(tmp_path / "file" / "cache", 100, scan=lambda folder: None)


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written to any file."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_closed_while_the_disk_is_full_is_open_no_more(new_index: NewIndex) -> None:
    index, other = new_index(100), new_index(100)
    for name in "ab":
        put(index, name, 50)
    with full_disk():
        index.unpin("packages/a/1")
    index.total_bytes()
    assert put(other, "c", 50)
    assert names(other) == ["b", "c"]


def test_what_cannot_be_written_is_not_open_and_the_error_says_why(new_index: NewIndex) -> None:
    index = new_index(100)
    put(index, "a", 50)
    index.unpin("packages/a/1")
    with full_disk(), pytest.raises(StorageFailed, match="cannot be used") as error:
        index.pin("packages/a/1", "a", "1", 50)
    assert "rollback" not in str(error.value)
    put(index, "b", 100)
    assert names(index) == ["b"]


def test_the_journal_keeps_its_room_on_the_disk(new_index: NewIndex) -> None:
    index = new_index(100)
    put(index, "a", 50)
    assert (index.folder / "index.sqlite-journal").stat().st_size > 0


def test_threads_of_two_processes_never_hold_more_than_the_budget(new_index: NewIndex) -> None:
    indexes = [new_index(100), new_index(100)]
    seen: list[int] = []
    ended = threading.Event()
    failures: list[BaseException] = []

    def watch() -> None:
        while not ended.is_set():
            seen.append(indexes[0].total_bytes())

    def work(number: int) -> None:
        index = indexes[number % 2]
        try:
            for turn in range(12):
                name = f"{number}-{turn}"
                try:
                    put(index, name, 24)
                except Overloaded:
                    continue
                seen.append(folder_bytes(index.folder / "packages"))
                index.unpin(f"packages/{name}/1")
        except (LipwireError, OSError) as error:
            failures.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    ended.set()
    watcher.join()
    assert failures == []
    assert max(seen) <= 100
    assert max(seen) >= 72


def test_pins_of_living_processes_outlast_a_look_at_them(new_index: NewIndex) -> None:
    one, two = new_index(100), new_index(100)
    put(one, "a", 60)
    for _ in range(3):
        with pytest.raises(Overloaded):
            put(two, "b", 60)
    assert len(os.listdir(one.folder / "holders")) == 2  # noqa: PTH208
    assert names(two) == ["a"]
