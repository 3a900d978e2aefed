"""The entry point of ``lipwire``: runs a command and turns how it ended into a line and an exit
code (``lipwire.cli.exits``).

A traceback is shown only with ``--debug`` or ``LIPWIRE_DEBUG=1``.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from lipwire.cli.exits import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED, Interrupted
from lipwire.cli.stopping import Terminated, end_if_asked, listen, over
from lipwire.cli.streams import flushed, prepare_streams


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and exit the process with the command's code (SystemExit).
    ``arguments`` are those behind the program's name; None for this process's own. Call it in the
    main thread."""
    prepare_streams()
    listen()
    try:
        code = _run(arguments)
        over()
    except (KeyboardInterrupt, Interrupted):
        over()
        _say("interrupted")
        code = EXIT_INTERRUPTED
    except Terminated as ended:
        over()
        _say("terminated" if ended.number == signal.SIGTERM else "terminal closed")
        code = 128 + ended.number
    unwritten = _written_out()
    sys.exit(code or unwritten)


def _run(arguments: Sequence[str] | None) -> int:
    """Run the command, say why it failed, and return the exit code.

    Raises KeyboardInterrupt, Interrupted or Terminated where a signal ended it.
    """
    try:
        from lipwire.cli.app import app

        app(arguments, prog_name="lipwire")
    except SystemExit as ended:  # typer's way
        return ended.code if isinstance(ended.code, int) else 0
    except Interrupted:
        raise
    except Exception as error:
        # A library whose callback a signal's exception fell into reports a failure of its own.
        end_if_asked()
        if isinstance(error, BrokenPipeError):
            return EXIT_FAILED
        if debugging():
            raise
        line, code = describe(error)
        _say(line)
        return code
    return 0


def debugging() -> bool:
    """Return whether tracebacks are wanted: the variable LIPWIRE_DEBUG, which ``--debug`` sets, is
    neither empty nor 0."""
    return os.environ.get("LIPWIRE_DEBUG", "0") not in ("", "0")


def describe(error: Exception) -> tuple[str, int]:
    """Return one line about ``error`` for people, which begins with "error: ", and the exit code of
    a command that ends with it: 2 for bad input (InvalidInput, NotFound), else 1."""
    from lipwire.domain.errors import InvalidInput, LipwireError, NotFound
    from lipwire.domain.wording import one_line

    if isinstance(error, LipwireError):
        code = EXIT_BAD_INPUT if isinstance(error, (InvalidInput, NotFound)) else EXIT_FAILED
        asked = f" (request {error.request_id})" if error.request_id else ""
        return f"error: {one_line(str(error))}{asked}", code
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"error: {one_line(error.strerror.lower() + where)}", EXIT_FAILED
    if isinstance(error, MemoryError):
        return "error: out of memory", EXIT_FAILED
    kind = type(error).__name__
    return (
        f"error: a fault in lipwire, {kind}: {one_line(str(error))} (LIPWIRE_DEBUG=1 shows where)",
        EXIT_FAILED,
    )


def _say(line: str) -> None:
    """``line`` on stderr, red where that is a terminal that wants colours."""
    with suppress(OSError):  # nobody is there to be told
        if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
            line = f"\x1b[31m{line}\x1b[0m"
        print(line, file=sys.stderr, flush=True)


def _written_out() -> int:
    """1 where what was printed could not be written out, which is said; whoever reads a pipe and
    goes away (``| head``) has what they wanted, and nothing is said. Else 0."""
    error = flushed(sys.stdout)
    if error is None:
        return 0
    if not isinstance(error, BrokenPipeError):
        _say(f"error: standard output cannot be written to: {(error.strerror or '').lower()}")
    return EXIT_FAILED
