"""How the programs that make an avatar end: each is a stage that can be stopped and continued."""

import sys
from collections.abc import Callable

from lipwire.domain import LipwireError

DONE, FAILED, INTERRUPTED = 0, 1, 130


def run_stage(work: Callable[[], None]) -> int:
    """The exit code of a stage: 0 when ``work`` is done, 1 and one line where it cannot be, 130
    where Ctrl-C stopped it."""
    try:
        work()
    except LipwireError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return INTERRUPTED
    return DONE
