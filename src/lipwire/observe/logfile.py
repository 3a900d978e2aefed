"""A log that is written to a file by a thread of its own, so that whoever logs never waits for a
disk."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Final

MOST_LINES: Final = 10_000
"""Lines that may wait to be written. A line has some hundred bytes, so they take a few MB."""
_BATCH: Final = 500
"""Lines that are written at a time."""
_LEAVE_S: Final = 5.0
_logger = logging.getLogger("lipwire.observe")


class FileHandler(logging.Handler):
    """Appends records to a file. The bounded queue in front of it drops the newest record when it
    is full; ``dropped`` counts them.

    Several processes may write one file: lines do not mix. A file that was moved away, such as by
    log rotation, is made anew with the next line, or by ``reopen``. Where the file cannot be
    written, one warning is logged, and another one when it can be written again; ``lost`` counts
    the records that could not be written. ``close`` writes out what waits, for 5 seconds at most.
    """

    def __init__(self, path: Path, *, most_lines: int = MOST_LINES) -> None:
        """Opens the file at ``path`` before the first line, in a thread. At most ``most_lines``
        lines wait to be written."""
        super().__init__()
        self.path: Final = path
        self.dropped = 0
        """Records for which the queue had no room."""
        self.lost = 0
        """Records that could not be written."""
        self._most_lines = most_lines
        self._lines: deque[bytes] = deque()
        self._ready = threading.Condition()
        self._reopening = False
        self._ended = False
        self._file: int | None = None
        self._torn = False
        """Whether the file ends within a line."""
        self._missing = 0
        """Lines that were dropped or lost since the file was last written; not told yet."""
        self._failing = False
        self._thread = threading.Thread(target=self._write, name="lipwire-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Format ``record`` and put it into the queue, without waiting. Where the queue is full,
        the record is dropped and counted in ``dropped``; once this is closed, it is dropped and not
        counted."""
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
        except Exception:
            self.handleError(record)
            return
        with self._ready:
            if self._ended:
                return
            # What the thread says of the file itself always has room: one line a batch at most.
            own = threading.current_thread() is self._thread
            if len(self._lines) >= self._most_lines and not own:
                self.dropped += 1
                self._missing += 1
                return
            self._lines.append(line)
            self._ready.notify()

    def reopen(self) -> None:
        """Have the handler's thread close the file and open ``path`` again, and return at once,
        without waiting for that. Call it when log rotation has renamed the file."""
        with self._ready:
            self._reopening = True
            self._ready.notify()

    def close(self) -> None:
        """Take no more records, write what is in the queue, for 5 seconds at most, and close the
        file."""
        with self._ready:
            self._ended = True
            self._ready.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(_LEAVE_S)
        super().close()

    def _write(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._lines or self._reopening or self._ended)
                taken = [self._lines.popleft() for _ in range(min(_BATCH, len(self._lines)))]
                reopening, self._reopening = self._reopening, False
                if not (taken or reopening):
                    break
            self._append(taken, reopening=reopening)
        self._shut()

    def _append(self, lines: list[bytes], *, reopening: bool) -> None:
        """Write ``lines``, after opening the file anew where that is asked for or its name leads
        to another one."""
        try:
            if reopening or not self._is_there():
                self._shut()
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
                self._torn = False
            data = (b"\n" if self._torn and lines else b"") + b"".join(lines)
            # One call: lines of several processes do not mix.
            written = os.write(self._file, data) if data else 0
            if data:
                lines = _unwritten(lines, written - self._torn)
                self._torn = self._torn if not written else not data[:written].endswith(b"\n")
            if lines:
                raise OSError(None, "the disk is full")
        except OSError as error:
            self._lose(len(lines), error)
        else:
            self._recover()

    def _is_there(self) -> bool:
        """Whether the open file is the one that has the name."""
        if self._file is None:
            return True  # it is opened next
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False  # it was moved away
        except OSError:
            return True  # that cannot be seen, and the open file can be written all the same

    def _lose(self, lines: int, error: OSError) -> None:
        with self._ready:
            self.lost += lines
            self._missing += lines
        if not self._failing:
            self._failing = True
            reason = (error.strerror or type(error).__name__).lower()
            _logger.warning("the log file %s cannot be written: %s", self.path, reason)

    def _recover(self) -> None:
        with self._ready:
            missing, self._missing = self._missing, 0
        if self._failing or missing:
            self._failing = False
            _logger.warning(
                "the log file %s is written; %d lines before this one are missing",
                self.path,
                missing,
                extra={"missing_lines": missing},
            )

    def _shut(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _unwritten(lines: list[bytes], written_bytes: int) -> list[bytes]:
    """Those of ``lines`` that are not wholly among the first ``written_bytes`` bytes of all."""
    for number, line in enumerate(lines):
        written_bytes -= len(line)
        if written_bytes < 0:
            return lines[number:]
    return []
