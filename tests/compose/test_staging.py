"""Staged files and folders: whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from lipwire.compose.staging import (
    discard,
    publish_file,
    publish_folder,
    stage_file,
    stage_folder,
    storage_failed,
)
from lipwire.domain import InvalidInput, StorageFailed


def test_a_file_appears_when_it_is_published(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old")
    staged = stage_file(target)
    staged.write_text("new")
    assert target.read_text() == "old"
    publish_file(staged, target)
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    publish_file(stage_file(tmp_path / "out"), tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_longest_name_works(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    publish_file(stage_file(target), target)
    assert target.exists()


def test_a_name_too_long_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 256)
    with pytest.raises(StorageFailed, match="File name too long"):
        stage_file(target)
    with pytest.raises(StorageFailed, match="File name too long"):
        stage_folder(target)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_a_file_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="it is a folder"):
        stage_file(tmp_path)


def test_a_failed_replacement_puts_the_old_folder_back(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "frame_000000.jpg").touch()
    staged = stage_folder(target)
    discard(staged)  # so that it cannot take the name
    with pytest.raises(StorageFailed):
        publish_folder(staged, target)
    assert [entry.name for entry in target.iterdir()] == ["frame_000000.jpg"]
    assert list(tmp_path.iterdir()) == [target]


def test_discarding_twice_or_nothing_is_quiet(tmp_path: Path) -> None:
    staged = stage_folder(tmp_path / "out")
    (staged / "frame_000000.jpg").touch()
    discard(staged)
    discard(staged)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_the_message_names_the_target_and_the_reason(number: int) -> None:
    failed = storage_failed(OSError(number, "whatever"), Path("some/out.mp4"))
    assert str(failed) == f"cannot write some/out.mp4: {os.strerror(number)}"
    assert failed.retryable
