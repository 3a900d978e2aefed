import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from lipwire.avatars.compiled import fingerprints, storage
from lipwire.avatars.compiled.fingerprints import RECORD_NAME, Fingerprints
from lipwire.domain import AvatarInvalid

SECOND_NS = 1_000_000_000


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files read for their content, in a world whose clock is an hour ahead.

    So every file is old enough for its times to be believed.
    """
    names: list[str] = []
    read = Fingerprints._read

    def counted(self: Fingerprints, path: Path) -> tuple[fingerprints.Stamp, int, str]:
        names.append(path.name)
        return read(self, path)

    monkeypatch.setattr(Fingerprints, "_read", counted)
    real = storage.now_ns
    monkeypatch.setattr(fingerprints, "now_ns", lambda: real() + 3600 * SECOND_NS)
    return names


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode() * 10)
    return paths


def hashed(files: Sequence[Path]) -> list[str]:
    """Hashes by way of the record, as a new process would take them."""
    root = files[0].parent
    prints = Fingerprints.load(root, [root / "home"])
    found = prints.hashes(files)
    (root / "home").mkdir(exist_ok=True)
    prints.save(root / "home")
    return found


def test_hashes_content(files: list[Path]) -> None:
    expected = [hashlib.blake2b(p.read_bytes(), digest_size=16).hexdigest() for p in files]
    assert hashed(files) == expected


def test_files_that_did_not_change_are_not_read(files: list[Path], reads: list[str]) -> None:
    first = hashed(files)
    assert sorted(reads) == ["a", "b"]
    assert hashed(files) == first
    assert sorted(reads) == ["a", "b"]


def test_a_touched_file_is_read_once_more_and_is_the_same(
    files: list[Path], reads: list[str]
) -> None:
    first = hashed(files)
    os.utime(files[0], ns=(SECOND_NS, SECOND_NS + 5))
    reads.clear()
    assert hashed(files) == first
    assert hashed(files) == first
    assert reads == ["a"]


def test_a_change_of_equal_length_with_the_old_time_is_seen(
    files: list[Path], reads: list[str]
) -> None:
    first = hashed(files)
    times = files[0].stat()
    files[0].write_bytes(b"c" * 10)
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    second = hashed(files)
    assert second[0] != first[0]
    assert second[1] == first[1]


def test_another_file_moved_into_the_place_is_seen(files: list[Path], reads: list[str]) -> None:
    first = hashed(files)
    files[1].rename(files[0])
    files[1].write_bytes(b"a" * 10)
    assert hashed(files)[0] == first[1]


def test_a_file_as_young_as_its_hash_is_read_again(files: list[Path]) -> None:
    # The clock is the real one here: the files were written this very moment.
    prints = Fingerprints.load(files[0].parent, [])
    prints.hashes(files)
    files[0].write_bytes(b"c" * 10)
    stamp = fingerprints._stamp(files[0].stat())
    # As if both writes had fallen into one step of the file system's clock.
    prints._entries["a"] = (stamp, stamp[1] + 1_000_000, prints._entries["a"][2])
    assert prints.hashes(files)[0] == hashlib.blake2b(b"c" * 10, digest_size=16).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"version":1}',
        b'{"version":99,"files":{}}',
        b'{"version":1,"files":{"a":[1,2]}}',
        b'{"version":1,"files":[1]}',
        b"\xff" * 100,
    ],
)
def test_a_damaged_record_costs_only_the_reading(files: list[Path], record: bytes) -> None:
    expected = hashed(files)
    (files[0].parent / "home" / RECORD_NAME).write_bytes(record)
    assert hashed(files) == expected


def test_a_file_that_is_gone(files: list[Path]) -> None:
    files[1].unlink()
    with pytest.raises(AvatarInvalid, match=r"^b cannot be read; no such file"):
        hashed(files)
