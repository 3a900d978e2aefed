"""Standard input, output and error of this process, also where it was started without them.

A descriptor that is closed (``2>&-``) is given to the next file that is opened, and what is meant
for standard error would be written into that file.

Standard error that cannot be written to, as on a full disk or when its reader has gone, ends no
work: what is meant for it is dropped from then on.

On Windows descriptors are not given away so, and standard error is left as it is.
"""

import io
import os
import select
import sys
from contextlib import suppress
from typing import Any, Final, TextIO, cast

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_STDERR: Final = 2
_closed: Final[set[str]] = set()
"""Those that this process was started without."""


def prepare_streams() -> None:
    """Open stdin, stdout and stderr where they are closed, have them accept any text, and have
    stderr never fail.

    A closed one becomes the null device, and so does one that is open in the wrong direction, such
    as stderr only for reading. A letter that the terminal's encoding lacks is written as a code:
    ``\\u5b89``.

    On Windows a stream that Python did not open becomes the null device, and stderr may fail.
    """
    if sys.platform == "win32":
        _open_missing()
        _accept_any_text()
        return
    for number, (name, mode) in enumerate(_STREAMS):
        _open(number, name, mode)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - until the end
    _accept_any_text()
    if _descriptor(sys.stderr) == _STDERR and isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _never_failing(sys.stderr)


def _open_missing() -> None:
    """Have the null device stand for the streams that are None, as those of a program without a
    console are."""
    for name, mode in _STREAMS:
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123 - until the end
            _closed.add(name)


def _accept_any_text() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def was_closed(name: str) -> bool:
    """Return whether the stream ``name`` ("stdin", "stdout" or "stderr") was closed, or open in the
    wrong direction, when ``prepare_streams`` was called at this process's start."""
    return name in _closed


def flushed(stream: TextIO) -> OSError | None:
    """Flush ``stream``; return the error where that failed, else None.

    After an error, what is written to ``stream`` is dropped, also when the interpreter ends.
    """
    try:
        stream.flush()
    except OSError as error:
        _to_null_device(stream.fileno())
        return error
    return None


class _NeverFailing(io.FileIO):
    """A file to be written to, which becomes the null device when that fails."""

    def write(self, data: Any) -> int:
        """Write ``data``, bytes, and return how many were written; see ``io.RawIOBase.write``."""
        while True:
            try:
                written = cast("int | None", super().write(data))
            except OSError:
                with suppress(OSError):  # there is no null device; then each piece is dropped here
                    _to_null_device(self.fileno())
                return memoryview(data).nbytes
            if written is not None:
                return written
            # Another program has made what they share non-blocking, and it is full.
            ready = select.poll()
            ready.register(self.fileno(), select.POLLOUT)
            ready.poll()


def _never_failing(stream: io.TextIOWrapper) -> TextIO:
    """``stream`` in every way but that."""
    stream.flush()
    raw = _NeverFailing(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=True,
        write_through=stream.write_through,
    )


def _open(number: int, name: str, mode: str) -> None:
    """Have descriptor ``number`` be the null device where it is closed or open the wrong way."""
    import fcntl  # Windows has none

    wrong = os.O_WRONLY if mode == "r" else os.O_RDONLY
    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
    except OSError:
        # The lowest free number, which this one is: those before it are open by now.
        os.open(os.devnull, os.O_RDWR)
    else:
        if flags & os.O_ACCMODE != wrong:
            return
        _to_null_device(number)
    _closed.add(name)
    os.set_inheritable(number, True)  # children need it as much


def _to_null_device(number: int) -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, number)
    os.close(devnull)


def _descriptor(stream: TextIO) -> int | None:
    with suppress(OSError, ValueError):
        return stream.fileno()
    return None
