"""Logs of the servers: one line a record, for people or, as JSON, for programs.

Every module logs to ``logging.getLogger("lipwire.PACKAGE")`` and gives figures as ``extra``: a
person reads them in the message, a program finds each under its own key.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from lipwire.domain.tracing import current_trace
from lipwire.domain.wording import escaped
from lipwire.observe.logfile import FileHandler

LogLevel = Literal["debug", "info", "warn", "error"]

_LEVELS: Final[dict[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
_WORDS: Final = {number: word for word, number in _LEVELS.items()}
_ORDINARY: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None)).keys() | {"message", "asctime", "taskName"}
)
"""What every record has; the rest came as ``extra``."""


def configure_logging(
    level: LogLevel,
    *,
    as_json: bool = False,
    stream: TextIO | None = None,
    file: Path | None = None,
) -> FileHandler | None:
    """Write what the loggers below "lipwire" log at ``level`` ("debug" to "error") and above to
    ``stream``; None is stdout. With ``file`` the same is also appended to the file at that path, by
    a thread of its own, and the ``FileHandler`` that does so is returned; without ``file``, None is
    returned.

    A record is one line of text, or with ``as_json`` one JSON object on a line. Called again, this
    replaces what it did before. Other libraries' loggers are left alone, except that gRPC's
    warnings are written the same way.
    """
    formatter = _JsonLines() if as_json else _TextLines()
    handlers: list[logging.Handler] = [_Handler(stream or sys.stdout)]
    written = None if file is None else FileHandler(file)
    if written is not None:
        handlers.append(written)
    for handler in handlers:
        handler.setFormatter(formatter)
    before: set[logging.Handler] = set()
    for name in ("lipwire", "grpc"):
        logger = logging.getLogger(name)
        before |= {each for each in logger.handlers if isinstance(each, FileHandler)}
        logger.handlers[:] = handlers
        logger.propagate = False
        logger.setLevel(_LEVELS[level] if name == "lipwire" else logging.WARNING)
    for each in before:
        each.close()
    return written


class _Handler(logging.StreamHandler[TextIO]):
    """Goes on without a log whose reader has gone, whose terminal has closed or whose disk is full:
    to say so for each line would need the same stream, or another one like it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


def _word(record: logging.LogRecord) -> str:
    return _WORDS.get(record.levelno, record.levelname.lower())


class _TextLines(logging.Formatter):
    """``12:30:05.123 info  24 frames of anna ...``; a traceback follows where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = escaped(record.getMessage())  # what a client sent may be part of it
        if trace := current_trace():
            message += f" (request {trace.request_id})"
        line = f"{clock}.{int(record.msecs):03d} {_word(record):<5} {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _JsonLines(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, pid, request_id where there
    is one, and the extras."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": _word(record),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if trace := current_trace():
            entry["request_id"] = trace.request_id
        entry |= {key: value for key, value in vars(record).items() if key not in _ORDINARY}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
