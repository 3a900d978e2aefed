"""The record of calls."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.waiting import Clock

from lipwire.domain import StorageFailed
from lipwire.security import AuditLog

if sys.platform != "win32":
    import resource


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_call_is_a_line(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit", now=lambda: 1_000_000_000.25) as audit:
        audit.write({"tenant": "acme", "ms": 1.5})
        audit.write({"tenant": "x\n{}\u2028\ud800" + "y" * 500})
    first, second = lines(tmp_path / "audit")
    assert first == {"time": "2001-09-09T01:46:40.250000+00:00", "tenant": "acme", "ms": 1.5}
    assert len(str(second["tenant"])) == 200
    assert str(second["tenant"]).startswith("x\n{}")


def test_a_file_goes_on_after_a_restart(tmp_path: Path) -> None:
    for number in range(2):
        with AuditLog(tmp_path / "audit") as audit:
            audit.write({"number": number})
    assert [line["number"] for line in lines(tmp_path / "audit")] == [0, 1]


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    clock = Clock()
    with AuditLog(tmp_path / "audit", now=clock) as audit:
        audit.write({"number": 0})
        (tmp_path / "audit").rename(tmp_path / "audit.1")
        audit.write({"number": 1})  # within a second: into the file that is open
        clock.now += 1
        audit.write({"number": 2})
    assert [line["number"] for line in lines(tmp_path / "audit.1")] == [0, 1]
    assert [line["number"] for line in lines(tmp_path / "audit")] == [2]


def test_lines_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    with AuditLog(tmp_path / "audit") as audit, AuditLog(tmp_path / "audit") as other:

        def write(log: AuditLog) -> None:
            for number in range(200):
                log.write({"number": number, "text": "z" * 150})

        threads = [threading.Thread(target=write, args=(log,)) for log in (audit, other) * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(lines(tmp_path / "audit")) == 800


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="the audit file"):
        AuditLog(tmp_path)


@pytest.mark.parametrize("required", [False, True])
def test_what_cannot_be_recorded_is_counted_or_refused(tmp_path: Path, required: bool) -> None:
    clock = Clock()
    folder = tmp_path / "folder"
    folder.mkdir()
    with AuditLog(folder / "audit", required=required, now=clock) as audit:
        audit.check()
        (folder / "audit").unlink()
        folder.rmdir()
        clock.now += 1
        audit.write({"number": 1})
        assert audit.lost == 1
        if required:
            with pytest.raises(StorageFailed, match="cannot be recorded now"):
                audit.check()
        else:
            audit.check()
        clock.now += 1
        if required:
            with pytest.raises(StorageFailed, match="cannot be recorded now"):
                audit.check()
        assert audit.lost == 1  # looking loses nothing
        folder.mkdir()
        clock.now += 1
        audit.check()
        audit.write({"number": 2})
    assert [line["number"] for line in lines(folder / "audit")] == [2]


def test_nothing_is_written_once_it_is_closed(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit")
    audit.close()
    audit.close()
    audit.write({"number": 1})
    assert not (tmp_path / "audit").read_text()


def test_a_full_disk_is_counted() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with AuditLog(full) as audit:
        audit.write({"number": 1})
        audit.write({"number": 2})
        assert audit.lost == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a file's size cannot be limited")
@pytest.mark.parametrize("room", [0, 1, 20])
def test_what_follows_part_of_a_line_is_a_line_of_its_own(tmp_path: Path, room: int) -> None:
    path = tmp_path / "audit"
    with AuditLog(path) as audit:
        audit.write({"number": 1})
        for number in (2, 3):
            with files_up_to(path.stat().st_size + room):
                audit.write({"number": number})
        audit.write({"number": 4})
        assert audit.lost == 2
    first, *_, last = path.read_text().splitlines()
    assert [json.loads(line)["number"] for line in (first, last)] == [1, 4]
    assert all(path.read_text().splitlines())


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file of this process grows beyond ``size`` bytes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
