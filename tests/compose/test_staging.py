"""Staged files and folders: whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lipwire.compose.staging import publish_file, publish_folder, stage_file, stage_folder
from lipwire.domain import InvalidInput, StorageFailed
from lipwire.domain.newfiles import remove


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
    remove(staged)  # so that it cannot take the name
    with pytest.raises(StorageFailed):
        publish_folder(staged, target)
    assert [entry.name for entry in target.iterdir()] == ["frame_000000.jpg"]
    assert list(tmp_path.iterdir()) == [target]


def linked(tmp_path: Path, kind: str) -> tuple[Path, Path]:
    """(a link, where it leads) in folders of their own."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    link, real = tmp_path / "here" / "out", tmp_path / "there" / "real"
    if kind == "absolute":
        link.symlink_to(real)
    elif kind == "relative":
        link.symlink_to("../there/real")
    else:
        (tmp_path / "here" / "middle").symlink_to(real)
        link.symlink_to("middle")
    return link, real


LINKS = pytest.mark.parametrize("kind", ["absolute", "relative", "of a link"])


@LINKS
@pytest.mark.parametrize("dangling", [True, False])
def test_a_file_is_written_to_where_a_link_leads(tmp_path: Path, kind: str, dangling: bool) -> None:
    link, real = linked(tmp_path, kind)
    if not dangling:
        real.write_text("old")
    before = link.readlink()
    staged = stage_file(link)
    assert staged.parent == real.parent
    staged.write_text("new")
    publish_file(staged, link)
    assert link.readlink() == before
    assert real.read_text() == "new"
    assert list(real.parent.iterdir()) == [real]


@LINKS
@pytest.mark.parametrize("dangling", [True, False])
def test_a_folder_is_replaced_where_a_link_leads(tmp_path: Path, kind: str, dangling: bool) -> None:
    link, real = linked(tmp_path, kind)
    if not dangling:
        real.mkdir()
        (real / "frame_000007.jpg").touch()
    before = link.readlink()
    staged = stage_folder(link)
    (staged / "frame_000000.jpg").touch()
    publish_folder(staged, link)
    assert link.readlink() == before
    assert [entry.name for entry in real.iterdir()] == ["frame_000000.jpg"]
    assert list(real.parent.iterdir()) == [real]
    assert len(list(link.parent.iterdir())) == (2 if kind == "of a link" else 1)


@pytest.mark.parametrize("stage", [stage_file, stage_folder])
def test_links_that_lead_nowhere_are_told_with_the_folder(
    tmp_path: Path, stage: Callable[[Path], Path]
) -> None:
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "gone" / "real")
    with pytest.raises(StorageFailed, match=f"^cannot write {link}: folder {tmp_path / 'gone'} "):
        stage(link)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(StorageFailed, match=f"^cannot write {loop}: Too many levels of symbolic"):
        stage(loop)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loop", "out"]


@pytest.mark.parametrize("through_a_link", [True, False])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, through_a_link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    target = pipe
    if through_a_link:
        target = tmp_path / "link"
        target.symlink_to(pipe)
    with pytest.raises(InvalidInput, match=f"^cannot write {target}: it is a device or a pipe"):
        stage_file(target)
    assert pipe.is_fifo()


def test_frames_of_a_mount_point_are_replaced_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "frame_000000.jpg").write_text("old")
    (target / "frame_000001.jpg").write_text("old")
    before = target.stat().st_ino
    monkeypatch.setattr(os.path, "ismount", lambda path: path == target)
    staged = stage_folder(target)
    (staged / "frame_000000.jpg").write_text("new")
    assert (target / "frame_000000.jpg").read_text() == "old"
    publish_folder(staged, target)
    assert [(entry.name, entry.read_text()) for entry in target.iterdir()] == [
        ("frame_000000.jpg", "new")
    ]
    assert target.stat().st_ino == before
    assert list(tmp_path.iterdir()) == [target]
