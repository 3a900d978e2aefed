import errno
from pathlib import Path

import pytest

from lipwire.avatars.storage import (
    exclusive,
    homes,
    new_file,
    new_folder,
    storage_errors,
    writable_home,
)
from lipwire.domain import StorageFailed


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with new_file(tmp_path / "a") as stream:
        stream.write(b"new")
        stream.flush()
        assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_whatever_is_raised_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    def half_write() -> None:
        with new_file(tmp_path / "a") as stream:
            stream.write(b"new")
            raise error

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(error):
        half_write()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_folder_appears_whole_and_replaces(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "old").write_text("")
    with new_folder(tmp_path / "m") as folder:
        (folder / "new").write_text("")
    assert names(tmp_path / "m") == ["new"]
    assert names(tmp_path) == ["m"]


def test_a_folder_half_filled_is_dropped(tmp_path: Path) -> None:
    def half_fill() -> None:
        with new_folder(tmp_path / "m") as folder:
            (folder / "new").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half_fill()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "there is no permission to write"),
        (errno.EIO, "input/output error"),
    ],
)
def test_the_reason_is_said_in_one_line(tmp_path: Path, number: int, reason: str) -> None:
    with (
        pytest.raises(StorageFailed, match=f"^cannot write .*/a; {reason}$"),
        storage_errors(tmp_path / "a"),
    ):
        raise OSError(number, "Input/output error")


def test_leftovers_of_the_dead_are_swept_under_the_lock(tmp_path: Path) -> None:
    (tmp_path / "a.tmp-1-ff").write_text("")
    (tmp_path / "m.tmp-1-ff").mkdir()
    (tmp_path / "m.tmp-1-ff" / "x").write_text("")
    (tmp_path / "kept").write_text("")
    with exclusive(tmp_path, lambda: None):
        assert names(tmp_path) == ["kept", "lock"]


def test_the_lock_is_waited_for(tmp_path: Path) -> None:
    waits = 0

    class GivenUpError(Exception):
        pass

    def waiting() -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            raise GivenUpError

    with (
        exclusive(tmp_path, lambda: None),
        pytest.raises(GivenUpError),
        exclusive(tmp_path, waiting),
    ):
        pass
    with exclusive(tmp_path, waiting):
        assert waits == 2


def test_home_is_in_the_package(tmp_path: Path) -> None:
    assert writable_home(tmp_path) == tmp_path / ".lipwire"
    assert (tmp_path / ".lipwire" / ".gitignore").read_text() == "*\n"


def test_a_linked_home_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "anna").mkdir()
    (tmp_path / "anna" / ".lipwire").symlink_to(tmp_path / "victim")
    assert writable_home(tmp_path / "anna") == homes(tmp_path / "anna")[1]
    assert names(tmp_path / "victim") == []


def test_packages_of_one_name_have_caches_of_their_own(tmp_path: Path) -> None:
    one, two = homes(tmp_path / "a" / "anna")[1], homes(tmp_path / "b" / "anna")[1]
    assert one != two
    assert one.name.startswith("anna-")
    assert one.parent == two.parent
