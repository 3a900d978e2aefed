"""The record of calls: one JSON line for each, in a file that only grows."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lipwire.domain import StorageFailed
from lipwire.domain.closing import Closing

_LINE_END: Final = ord("\n")
_LOG: Final = logging.getLogger("lipwire.audit")
_LOOK_EVERY_S: Final = 1.0
"""How often it is looked whether the file was moved away, as log rotation does."""
_LONGEST: Final = 200
"""Characters of a value; what a client sends is not to fill the disk."""


class AuditLog(Closing):
    """Appends one line of JSON to a file for each request of a server. Thread-safe; several
    processes may write one file. A context manager. Where the file was moved away, a new one is
    made under its name within a second. ``lost`` counts lines that could not be written."""

    def __init__(
        self,
        path: Path,
        *,
        required: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``path`` is the file, which is made where it is missing. With ``required``, ``check``
        raises while the file cannot be written, so that no request is answered that cannot be
        recorded. ``now`` gives seconds since 1970. Raises StorageFailed where the file cannot be
        opened."""
        self.path: Final = path
        self.required: Final = required
        self.lost = 0
        """Lines that could not be written."""
        self._now = now
        self._lock = threading.Lock()
        self._looked_s = now()
        self._told = False  # of the first failure
        self._torn = False  # the file ends with part of a line
        self._file: int | None = None
        self._closed = False
        try:
            self._file = _open(path)
        except OSError as error:
            raise StorageFailed(
                f"the audit file {path} cannot be opened: {error.strerror}"
            ) from None

    def check(self) -> None:
        """Raise StorageFailed where records are required (``required``) and the file cannot be
        opened or written; to be called before a request is answered. Does nothing where records are
        not required."""
        if not self.required:
            return
        with self._lock:
            self._look()
            if self._file is None:
                raise StorageFailed("calls cannot be recorded now, and none is answered without")

    def write(self, values: Mapping[str, object]) -> None:
        """Append a JSON object with the time (RFC 3339, UTC) and ``values``, which have to be
        values of JSON; texts are cut to 200 characters. Lines that cannot be written are counted in
        ``lost``, and the first such failure is logged; nothing is raised then. Does nothing after
        ``close``. Where only part of a line could be written, the next one begins on a new line."""
        line: dict[str, Any] = {"time": datetime.fromtimestamp(self._now(), UTC).isoformat()}
        for name, value in values.items():
            line[name] = value[:_LONGEST] if isinstance(value, str) else value
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode()
        with self._lock:
            if self._closed:
                return
            self._look()
            try:
                if self._file is None:
                    self._file = _open(self.path)
                # One call: lines of several processes do not mix.
                whole = b"\n" + data if self._torn else data
                count = os.write(self._file, whole)
                if count:
                    self._torn = whole[count - 1] != _LINE_END
                if count < len(whole):
                    raise OSError(None, "the disk is full")
            except OSError as error:
                self.lost += 1
                self._fail(error)

    def close(self) -> None:
        """Close the file; nothing is written after that."""
        with self._lock:
            file, self._file = self._file, None
            self._closed = True
        if file is not None:
            os.close(file)

    def _look(self) -> None:
        """Open the file anew where its name leads to another one, or to none. The lock is held."""
        now = self._now()
        if now - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now
        try:
            if self._file is not None and os.path.samestat(os.fstat(self._file), self.path.stat()):
                return
        except OSError:
            pass  # it was moved away, and nothing has its name
        if self._file is not None:
            os.close(self._file)
            self._file = None
        try:
            self._file = _open(self.path)
        except OSError as error:
            self._fail(error)
        else:
            self._torn = False

    def _fail(self, error: OSError) -> None:
        if not self._told:
            _LOG.error("calls cannot be recorded in %s: %s", self.path, error.strerror)
        self._told = True
        if self._file is not None and self.required:
            os.close(self._file)
            self._file = None


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
