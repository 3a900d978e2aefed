"""How the programs that make an avatar end: each is a stage that can be stopped and continued."""

import sys
from collections.abc import Callable

from lipwire.domain import LipwireError

DONE, FAILED, INTERRUPTED = 0, 1, 130


def run_stage(work: Callable[[], None]) -> int:
    """Run ``work()``, the whole work of a program, and return the program's exit code.

    The exit code is 0 when the work is done, 1 where ``work`` raises a LipwireError, whose message
    is printed in one line, and 130 where Ctrl-C stopped it. Other errors are passed on.
    """
    try:
        work()
    except LipwireError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return INTERRUPTED
    return DONE
