"""The entry point of ``lipwire``: runs a command and turns how it ended into a line and an exit
code (``lipwire.cli.exits``).

A traceback is shown only with ``--debug`` or ``LIPWIRE_DEBUG=1``.
"""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lipwire.cli.exits import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_TERMINATED,
    Interrupted,
)
from lipwire.cli.stopping import Terminated, listen


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (of this process where ``arguments`` is None) and exit."""
    listen()
    try:
        from lipwire.cli.app import app

        app(arguments, prog_name="lipwire")
    except (KeyboardInterrupt, Interrupted):
        _say("interrupted")
        code = EXIT_INTERRUPTED
    except Terminated:
        _say("terminated")
        code = EXIT_TERMINATED
    except BrokenPipeError:
        code = _quiet_pipe()
    except Exception as error:
        if debugging():
            raise
        line, code = describe(error)
        _say(line)
    else:
        code = 0
    sys.exit(code)


def debugging() -> bool:
    """Whether tracebacks are wanted: ``--debug``, or LIPWIRE_DEBUG set to anything but 0."""
    return os.environ.get("LIPWIRE_DEBUG", "0") not in ("", "0")


def describe(error: Exception) -> tuple[str, int]:
    """One line for a person and the exit code that goes with ``error``."""
    from lipwire.domain.errors import InvalidInput, LipwireError, NotFound

    if isinstance(error, LipwireError):
        code = EXIT_BAD_INPUT if isinstance(error, (InvalidInput, NotFound)) else EXIT_FAILED
        return f"error: {_one_line(str(error))}", code
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"error: {_one_line(error.strerror.lower() + where)}", EXIT_FAILED
    if isinstance(error, MemoryError):
        return "error: out of memory", EXIT_FAILED
    kind = type(error).__name__
    return (
        f"error: a fault in lipwire, {kind}: {_one_line(str(error))} (LIPWIRE_DEBUG=1 shows where)",
        EXIT_FAILED,
    )


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _say(line: str) -> None:
    """``line`` on stderr, red where that is a terminal that wants colours."""
    try:
        if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            line = f"\x1b[31m{line}\x1b[0m"
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _quiet_pipe()


def _quiet_pipe() -> int:
    """Whoever read our output went away (``| head``): end without a word."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return EXIT_FAILED
