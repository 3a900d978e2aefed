"""Single keys of a terminal, without the return key."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Keyboard:
    """Tells whether a key of a terminal was pressed. Where there is no terminal, no key is ever
    pressed."""

    def __init__(self, descriptor: int | None) -> None:
        """``descriptor`` is the terminal's file descriptor; None where there is no terminal."""
        self._descriptor = descriptor

    def pressed(self, wanted: str, timeout_s: float) -> bool:
        """Wait until one of the characters in ``wanted`` is typed, at most ``timeout_s`` seconds.
        Returns True where one was, or where the terminal has closed; False where the time is over.
        Other keys are ignored."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0:
            if self._descriptor is None:
                time.sleep(left_s)
            elif select.select([self._descriptor], [], [], left_s)[0]:
                keys = os.read(self._descriptor, 64)
                if not keys or any(key in wanted for key in keys.decode(errors="replace")):
                    return True
        return False


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Give the ``with`` block a ``Keyboard`` of standard input, which is switched to send single
    keys. Where standard input is no terminal, the ``Keyboard`` has no keys. Afterwards the terminal
    is as it was before. A context manager."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):  # Windows; no terminal; no stdin
        yield Keyboard(None)
        return
    except termios.error:  # no terminal
        yield Keyboard(None)
        return
    tty.setcbreak(descriptor)
    try:
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
