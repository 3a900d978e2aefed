"""How the programs that make an avatar end: each is a stage that can be stopped and continued."""

import sys
from collections.abc import Callable

from lipwire.domain import LipwireError

DONE, FAILED, INTERRUPTED = 0, 1, 130


def run_stage(work: Callable[[], None]) -> int:
    """Run ``work`` and return the exit code of a program.

    It is 0 when the work is done, 1 where it fails, which prints one line, 130 where Ctrl-C stopped
    it.
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
