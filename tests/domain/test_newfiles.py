"""Files and folders that appear whole or not at all."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.domain import StorageFailed
from lipwire.domain.newfiles import (
    TEMPORARY,
    followed,
    new_file,
    new_folder,
    new_path,
    publish,
    remove,
    storage_errors,
    storage_failed,
    temporary_name,
    write_file,
)


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


def test_a_path_is_for_who_opens_files_by_name(tmp_path: Path) -> None:
    with new_path(tmp_path / "a.png") as path:
        assert path.parent == tmp_path
        assert path.suffix == ".png"
        assert not path.exists()
        path.write_bytes(b"new")
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert names(tmp_path) == ["a.png"]


def test_what_was_never_made_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), new_path(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_file(tmp_path / "a", b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["n" * 255, "n." + "x" * 253])
def test_the_longest_name_works(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / name, b"new")
    assert names(tmp_path) == [name]
    with new_folder(tmp_path / name):
        pass
    assert (tmp_path / name).is_dir()
    assert names(tmp_path) == [name]


def test_bytes_are_on_the_disk_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []

    def fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        flushed.append((is_folder, (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(tmp_path / "a", b"new")
    assert flushed == [(False, False), (True, True)]


def test_a_full_disk_found_while_flushing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_file(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageFailed, match=f"^cannot write {tmp_path / 'a'}: No space left"):
        write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "passes"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_file_system_may_be_unable_to_flush_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, passes: bool
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if passes:
        write_file(tmp_path / "a", b"new")
        assert (tmp_path / "a").read_bytes() == b"new"
    else:
        with pytest.raises(StorageFailed):
            write_file(tmp_path / "a", b"new")


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


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_folder_that_cannot_be_published_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    target, new = tmp_path / "m", tmp_path / "new"
    make(target)
    new.mkdir()
    rename = Path.rename

    def fail(path: Path, to: Path) -> Path:
        if path == new:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, to)

    before = target.stat().st_ino
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        publish(new, target)
    assert target.stat().st_ino == before
    assert names(tmp_path) == ["m", "new"]


def test_a_file_takes_no_folders_name(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(StorageFailed, match="Is a directory"):
        write_file(tmp_path / "m", b"new")
    assert names(tmp_path) == ["m"]


def test_temporary_names_differ_and_can_be_told(tmp_path: Path) -> None:
    found = {temporary_name(tmp_path, ".mp4") for _ in range(100)}
    assert len(found) == 100
    assert all(TEMPORARY in path.name and path.suffix == ".mp4" for path in found)


def test_removing_twice_or_nothing_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder", "file", "link", "link", "nothing"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["elsewhere"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_the_message_names_the_target_and_the_reason(number: int) -> None:
    failed = storage_failed(OSError(number, "whatever"), Path("some/out.mp4"))
    assert str(failed) == f"cannot write some/out.mp4: {os.strerror(number)}"
    assert failed.retryable


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    target = tmp_path / "gone" / "a"
    with pytest.raises(StorageFailed, match=f"^cannot write {target}: folder {target.parent} does"):
        write_file(target, b"")


def test_errors_that_are_not_the_disks_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), storage_errors(tmp_path):
        raise ValueError("x")


def test_what_is_no_link_is_itself(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "missing", tmp_path / "folder" / "x", Path("x"), Path()):
        assert followed(path) == path
