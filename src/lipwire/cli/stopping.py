"""Ctrl-C and SIGTERM, so that everything opened is closed and nothing half-done stays.

A signal becomes an exception wherever the main thread is, and Python drops an exception that
falls into a destructor or a callback of the garbage collector. So the signal is remembered too, and
work that takes long asks now and then whether it should have ended (``end_if_asked``).
"""

import signal
from types import FrameType
from typing import NoReturn

_received: int | None = None


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


def listen() -> None:
    """Take over both signals of this process; what was received before is forgotten."""
    global _received
    _received = None
    # Whoever starts us in the background has Ctrl-C ignored, and that is to stay so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def end_if_asked() -> None:
    """Raise KeyboardInterrupt or Terminated if such a signal came and got lost."""
    if _received is not None:
        _raise(_received)


def _end(number: int, _frame: FrameType | None) -> None:
    global _received
    _received = number
    _raise(number)


def _raise(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated
