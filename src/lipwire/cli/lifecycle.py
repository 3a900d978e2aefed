"""How a server's process ends: once the work in hand is done, or at once when told twice.

A signal handler may only do what harms nobody it interrupts, so it writes a byte into a pipe, and
whoever waits reads it.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """SIGTERM and Ctrl-C as a request to finish; a second one ends the process at once.

    A context manager for the main thread. ``with_stdin`` takes the end of stdin as such a request
    too: the process that started this one held the other end and is gone.
    """

    def __init__(self, *, with_stdin: bool = False) -> None:
        self._with_stdin = with_stdin
        self._reading, self._writing = os.pipe()
        self._asked: int | None = None
        self._before: dict[int, object] = {}

    @property
    def asked(self) -> bool:
        """Whether this process was asked to end."""
        return self._asked is not None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until this process is asked to end, or time is up; returns ``asked``."""
        if self._asked is None:
            watched = [self._reading, *([sys.stdin.fileno()] if self._with_stdin else [])]
            ready, _, _ = select.select(watched, [], [], timeout_s)
            if self._with_stdin and sys.stdin.fileno() in ready:
                os.read(sys.stdin.fileno(), 1024)  # nobody writes: it is the end
                self._asked = signal.SIGTERM
        return self.asked

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            # Whoever starts us in the background has Ctrl-C ignored, and that is to stay so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave
        os.close(self._reading)
        os.close(self._writing)

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self._asked is not None:
            os._exit(128 + number)
        self._asked = number
        os.write(self._writing, b"\0")
