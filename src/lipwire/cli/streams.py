"""Standard input, output and error of this process, also where it was started without them.

A descriptor that is closed (``2>&-``) is given to the next file that is opened, and what is meant
for standard error would be written into that file.
"""

import io
import os
import sys
from typing import Final, TextIO

_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
_closed: Final[set[str]] = set()
"""Those that this process was started without."""


def prepare_streams() -> None:
    """Open stdin, stdout and stderr where they are closed, and have them accept any text.

    A closed one becomes the null device. A letter that the terminal's encoding lacks is written as
    its number: ``\\u5b89``.
    """
    for number, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which this one is: those before it are open by now.
            os.open(os.devnull, os.O_RDWR)
            _closed.add(name)
            os.set_inheritable(number, True)  # children need it as much
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - until the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def was_closed(name: str) -> bool:
    """Return whether ``prepare_streams`` found the stream ``name`` ("stdin", "stdout" or "stderr")
    closed when this process started."""
    return name in _closed


def flushed(stream: TextIO) -> OSError | None:
    """Flush ``stream``; return the error where that failed, else None.

    After an error nothing more is written to it, not even when the interpreter ends.
    """
    try:
        stream.flush()
    except OSError as error:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
        return error
    return None
