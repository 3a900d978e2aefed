"""How a command ends: its exit code.

======  ==========================================================================================
 code    meaning
======  ==========================================================================================
0       done
1       it failed, or ``validate`` or ``evaluate`` found the avatar wanting
2       bad usage or bad input
130     interrupted with Ctrl-C (143: told to stop with SIGTERM; 129: its terminal closed)
======  ==========================================================================================
"""

from typing import Final

EXIT_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130


class Interrupted(Exception):
    """Raised inside a command in place of KeyboardInterrupt, for Ctrl-C: an ordinary exception,
    which typer passes on unchanged."""
