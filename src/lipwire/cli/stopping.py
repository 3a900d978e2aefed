"""Ctrl-C, SIGTERM and a terminal that closes, so that everything opened is closed and nothing
half-done stays.

A signal becomes an exception wherever the main thread is, and Python drops an exception that
falls into a destructor or a callback of the garbage collector. So the signal is remembered too, and
work that takes long asks now and then whether it should have ended (``end_if_asked``).

What comes while that exception is on its way is not raised: it would end the cleaning up half-way.
Only Ctrl-C is, where nothing is to be seen of the exception. Whoever presses it three times does
not want to wait.

Python gives signals back their default action while it ends, before it is gone: one that came then
would kill a process whose work is done and change its exit code. So they are ignored from its last
exit handler on.
"""

import atexit
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if name in signal.Signals.__members__  # Windows has no SIGHUP
)
"""What asks a process to end."""
_INSISTING: Final = 2
"""Presses of Ctrl-C after the signal that is being obeyed."""

_received: int | None = None
_repeated = 0
_over = False


class Terminated(BaseException):
    """Raised in the main thread for SIGTERM or SIGHUP, just as KeyboardInterrupt is raised for
    SIGINT. ``number`` is the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def listen() -> None:
    """Make SIGINT raise KeyboardInterrupt, and SIGTERM and SIGHUP raise ``Terminated``, in the main
    thread from now on. Signals that this process was started to ignore stay ignored, and signals
    that arrived before are forgotten. Call it in the main thread."""
    global _received, _repeated, _over
    _received, _repeated, _over = None, 0, False
    # Exit handlers run last first, and this one is to be the last: it is registered before the
    # libraries that a command imports register theirs.
    atexit.unregister(_ignore)
    atexit.register(_ignore)
    for number in SIGNALS:
        # Whoever starts us in the background has Ctrl-C ignored, nohup SIGHUP; that is to stay so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def end_if_asked() -> None:
    """Raise KeyboardInterrupt (SIGINT) or Terminated (SIGTERM, SIGHUP) where such a signal has
    arrived since ``listen``, in case the exception that it raised was lost; else do nothing. Call
    it now and then during long work."""
    if _received is not None:
        _raise(_received)


def over() -> None:
    """Make SIGTERM, SIGINT and SIGHUP raise nothing from now on. They are ignored, except that a
    second ignored SIGINT ends the process at once. Call it when the work is done or given up."""
    global _over
    _over = True


def _ignore() -> None:
    over()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> None:
    global _received, _repeated
    # While an exception is on its way through destructors, it cannot be seen. It may also have been
    # dropped there: then work that takes long finds out, and Ctrl-C need not wait for that.
    if _over or _unwinding() or (_received is not None and number != signal.SIGINT):
        _repeated += number == signal.SIGINT
        if _repeated >= _INSISTING:
            os._exit(128 + number)
        return
    if _received is None:
        _received = number
    _raise(_received)


def _unwinding() -> bool:
    """Whether the exception of an earlier signal is being handled where the main thread is."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, (KeyboardInterrupt, Terminated)):
            return True
        error = error.__context__
    return False


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)
