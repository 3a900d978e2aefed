"""What is known of finished videos."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from lipwire.domain import InvalidInput, StorageFailed
from lipwire.rendermany import Ledger


def test_a_finished_video_is_known_as_long_as_it_is_there(tmp_path: Path) -> None:
    path, out = tmp_path / "jobs.done", tmp_path / "1.mp4"
    out.write_bytes(b"video")
    with Ledger(path) as ledger:
        assert not ledger.has(out, "key")
        assert not ledger.knows(out)
        ledger.add(out, "key", 5)
        assert ledger.has(out, "key")
    with Ledger(path) as ledger:
        assert ledger.has(out, "key")
        assert not ledger.has(out, "another key")
        out.write_bytes(b"vid")
        assert not ledger.has(out, "key")
        out.unlink()
        assert not ledger.has(out, "key")
        assert ledger.knows(out)
        ledger.add(out, "newer", 3)
        out.write_bytes(b"new")
    with Ledger(path) as ledger:
        assert ledger.has(out, "newer")


def test_a_line_that_was_cut_off_spoils_no_other(tmp_path: Path) -> None:
    path, one, two = (tmp_path / name for name in ("jobs.done", "1.mp4", "2.mp4"))
    for video in (one, two):
        video.write_bytes(b"video")
    with Ledger(path) as ledger:
        ledger.add(one, "1", 5)
        ledger.add(two, "2", 5)
    path.write_bytes(path.read_bytes()[:-9] + b"\xff")
    with Ledger(path) as ledger:
        assert ledger.has(one, "1")
        assert not ledger.has(two, "2")
        ledger.add(two, "2", 5)
    with Ledger(path) as ledger:
        assert ledger.has(two, "2")


def test_lines_of_something_else_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "jobs.done"
    path.write_text('7\n[]\n{"out": 1, "key": "a", "size_bytes": 2}\n{"out": "x"}\n\n')
    with Ledger(path) as ledger:
        assert not ledger.knows(Path("x"))


def test_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "jobs.done"
    with Ledger(path), pytest.raises(InvalidInput, match="is in use: another run"):
        Ledger(path)
    Ledger(path).close()


def test_a_ledger_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"there is no folder .*none"):
        Ledger(tmp_path / "none" / "jobs.done")
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(StorageFailed, match="folder: it is there and no file"):
        Ledger(path)
    path.rmdir()
    path.touch()
    with (
        patch.object(Path, "read_bytes", side_effect=OSError(errno.EIO, "broken")),
        pytest.raises(StorageFailed, match="broken"),
    ):
        Ledger(path)
    Ledger(path).close()  # nothing was left locked


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with Ledger(tmp_path / "jobs.done") as ledger:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, ledger._file.fileno())
        os.close(full)
        with pytest.raises(StorageFailed, match="No space left"):
            ledger.add(tmp_path / "1.mp4", "key", 5)
        with suppress(OSError):  # what could not be written is tried again
            ledger._file.close()
