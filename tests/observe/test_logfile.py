from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.waiting import WAIT_S, until

from lipwire.observe import FileHandler, configure_logging

logger = logging.getLogger("lipwire.rpc")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the log goes beside the file; the loggers are as before in the end."""
    loggers = [logging.getLogger(name) for name in ("lipwire", "grpc")]
    before = [(each.handlers[:], each.propagate, each.level) for each in loggers]
    yield io.StringIO()
    for each, (handlers, propagate, level) in zip(loggers, before, strict=True):
        for handler in set(each.handlers) - set(handlers):
            handler.close()
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def configured(path: Path, stream: io.StringIO, *, as_json: bool = False) -> FileHandler:
    handler = configure_logging("info", as_json=as_json, stream=stream, file=path)
    assert handler is not None
    return handler


def has(path: Path, text: str) -> bool:
    return path.exists() and text in path.read_text()


def test_the_file_has_the_lines_that_the_stream_has(tmp_path: Path, stream: io.StringIO) -> None:
    path = tmp_path / "lipwire.log"
    path.write_text("before\n")
    handler = configured(path, stream, as_json=True)
    logger.info("24 frames of %s", "anna", extra={"composite_ms": 9.5})
    logger.debug("nothing of this")
    handler.close()
    first, line = path.read_text().splitlines()
    assert first == "before"
    assert line == stream.getvalue().rstrip("\n")
    assert json.loads(line)["composite_ms"] == 9.5


def test_configuring_again_closes_the_file_of_before(tmp_path: Path, stream: io.StringIO) -> None:
    configured(tmp_path / "first.log", stream)
    logger.info("one")
    configured(tmp_path / "second.log", stream).close()
    assert has(tmp_path / "first.log", "one")
    assert not any(thread.name == "lipwire-log" for thread in threading.enumerate())


@pytest.mark.parametrize("asked", [True, False], ids=["by reopen", "by the next line"])
def test_a_file_that_was_moved_away_is_made_anew(
    tmp_path: Path, stream: io.StringIO, asked: bool
) -> None:
    path, moved = tmp_path / "lipwire.log", tmp_path / "lipwire.log.1"
    handler = configured(path, stream)
    logger.info("first")
    until(lambda: has(path, "first"))
    path.rename(moved)
    if asked:
        handler.reopen()
        until(path.exists)
    logger.info("second")
    handler.close()
    assert has(moved, "first")
    assert has(path, "second")
    assert not has(moved, "second")


def test_who_logs_does_not_wait_for_a_file_that_hangs(tmp_path: Path, stream: io.StringIO) -> None:
    """A pipe that nobody reads cannot even be opened."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("the system has no named pipes")
    path = tmp_path / "pipe"
    os.mkfifo(path)
    handler = FileHandler(path, most_lines=3)
    record = logging.LogRecord("lipwire.rpc", logging.INFO, "", 0, "a line", (), None)
    handler.emit(record)
    until(lambda: not handler._lines)  # the thread has taken it, and waits for a reader
    for _ in range(10):
        handler.emit(record)
    assert handler.dropped == 7
    with path.open("rb") as reading:
        handler.close()
        assert reading.read() == b"a line\n" * 4


def test_lines_that_were_dropped_are_told(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lipwire.log"
    monkeypatch.setattr(FileHandler.__init__, "__kwdefaults__", {"most_lines": 3})
    held = threading.Event()
    append = FileHandler._append

    def slow(handler: FileHandler, lines: list[bytes], *, reopening: bool) -> None:
        assert held.wait(WAIT_S)
        append(handler, lines, reopening=reopening)

    monkeypatch.setattr(FileHandler, "_append", slow)
    handler = configured(path, stream)
    logger.info("first")
    until(lambda: not handler._lines)
    for number in range(8):
        logger.info("line %d", number)
    held.set()
    until(lambda: has(path, "5 lines before this one are missing"))
    assert stream.getvalue().count("line ") == 8
    assert has(path, "line 2")
    assert not has(path, "line 3")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_warning(stream: io.StringIO) -> None:
    handler = configured(Path("/dev/full"), stream)
    for number in range(5):
        logger.info("line %d", number)
    until(lambda: handler.lost >= 5)
    until(lambda: "cannot be written" in stream.getvalue())
    for number in range(5):
        logger.info("more %d", number)
    until(lambda: handler.lost >= 11)  # the warning is a line, too
    assert stream.getvalue().count("cannot be written: no space left on device") == 1


def test_a_file_that_can_be_written_again_is_told(tmp_path: Path, stream: io.StringIO) -> None:
    path = tmp_path / "not yet" / "lipwire.log"
    handler = configured(path, stream)
    logger.info("lost")
    until(lambda: "cannot be written: no such file or directory" in stream.getvalue())
    until(lambda: handler.lost == 2)
    path.parent.mkdir()
    logger.info("kept")
    until(lambda: has(path, "2 lines before this one are missing"))
    assert has(path, "kept")
    assert not has(path, "lost")


def test_a_line_that_was_cut_short_is_ended(
    tmp_path: Path, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lipwire.log"
    room = [7]
    write = os.write

    def short(file: int, data: bytes) -> int:
        taken = min(len(data), room[0])
        room[0] -= taken
        return write(file, data[:taken]) if taken else 0

    handler = FileHandler(path)
    monkeypatch.setattr("lipwire.observe.logfile.os.write", short)
    for text in ("one", "two"):
        handler.emit(logging.LogRecord("lipwire", logging.INFO, "", 0, text, (), None))
        until(lambda: not handler._lines)
    until(lambda: handler.lost == 1)
    room[0] = 100
    handler.emit(logging.LogRecord("lipwire", logging.INFO, "", 0, "three", (), None))
    handler.close()
    assert path.read_text() == "one\ntwo\nthree\n"


def test_what_is_wrong_with_a_record_is_still_shown(
    tmp_path: Path, stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    configured(tmp_path / "lipwire.log", stream)
    logger.info("%d", "no number")
    assert capsys.readouterr().err.count("--- Logging error ---") == 2


PROCESS = """
import logging, pathlib, sys
from lipwire.observe import configure_logging
configure_logging("info", file=pathlib.Path(sys.argv[1]))
for number in range(300):
    logging.getLogger("lipwire.rpc").info("%s %d %s", sys.argv[2], number, "x" * 200)
"""


@pytest.mark.slow
def test_lines_of_several_processes_do_not_mix_and_none_is_lost_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "lipwire.log"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(path), name], stdout=subprocess.DEVNULL
        )
        for name in "abc"
    ]
    assert [process.wait(WAIT_S) for process in processes] == [0, 0, 0]
    words = [line.split()[2:] for line in path.read_text().splitlines()]
    assert sorted((name, int(number)) for name, number, _ in words) == [
        (name, number) for name in "abc" for number in range(300)
    ]
    assert {end for _, _, end in words} == {"x" * 200}
