"""How a server's process ends: once the work in hand is done, or at once when told twice.

Python runs a signal's handler in the main thread only, and only when that thread comes by; a signal
that the system delivers to another thread, or just before the main thread begins to wait, is not
heard until something else wakes it. So the number goes through a pipe (``signal.set_wakeup_fd``),
which a thread of ours reads.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from signal import SIGINT, SIGTERM
from types import FrameType, TracebackType
from typing import Final, Self

from lipwire.cli.servers.ownterminal import OwnTerminal
from lipwire.cli.stopping import SIGNALS

_SIGHUP: Final = getattr(signal, "SIGHUP", None)  # Windows has none


class Stopping:
    """Makes SIGTERM, SIGINT (Ctrl-C) and SIGHUP a request to finish, which ``asked`` and ``wait``
    report. A second SIGTERM or SIGINT ends the process at once. A context manager for the main
    thread.

    With ``with_stdin``, the end of standard input is such a request too: it means that the parent
    process, which holds the other end, is gone. Then a second signal does not end the process at
    once, because whoever ends all processes of a service signals this one as well as its parent,
    and the parent signals this one again. A second SIGHUP never does, because a terminal that
    closes sends it and its shell sends it again.

    ``on_hangup()`` is called, in a thread, for a SIGHUP that was not sent because the terminal
    closed; such a signal is no request to finish then. Where ``on_hangup`` is None, every SIGHUP is
    a request.
    """

    def __init__(
        self, *, with_stdin: bool = False, on_hangup: Callable[[], object] | None = None
    ) -> None:
        self._with_stdin = with_stdin
        self._on_hangup = on_hangup
        self._terminal = OwnTerminal()
        self._asked = threading.Event()
        self._before: dict[int, object] = {}
        self._reading, self._writing = os.pipe()
        self._wakeup_before = -1
        self._listener = threading.Thread(target=self._listen, name="lipwire-signals", daemon=True)

    @property
    def asked(self) -> bool:
        """Whether this process was asked to end since the ``with`` block began. May be read in any
        thread."""
        return self._asked.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until this process is asked to end, at most ``timeout_s`` seconds (None: without
        limit). Returns True where it was asked, False where the time is over."""
        return self._asked.wait(timeout_s)

    def __enter__(self) -> Self:
        self._listener.start()
        if self._with_stdin:
            threading.Thread(target=self._watch_stdin, name="lipwire-stdin", daemon=True).start()
        if os.name == "posix":
            os.set_blocking(self._writing, False)  # set_wakeup_fd insists on it
        self._wakeup_before = signal.set_wakeup_fd(self._writing)
        for number in SIGNALS:
            # Whoever starts us in the background has Ctrl-C ignored, nohup SIGHUP; it stays so,
            # unless SIGHUP does not end us.
            used = number == _SIGHUP and self._on_hangup is not None
            if used or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _leave_to_the_listener)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal() gave
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writing)
        self._listener.join()
        os.close(self._reading)
        self._terminal.close()

    def _listen(self) -> None:
        while numbers := os.read(self._reading, 64):
            for number in numbers:
                if number not in self._before:
                    continue
                hangup = self._on_hangup if number == _SIGHUP else None
                if hangup is not None and not self._terminal.closed():
                    hangup()
                    continue
                if self.asked and not self._with_stdin and number in (SIGINT, SIGTERM):
                    os._exit(128 + number)
                self._asked.set()

    def _watch_stdin(self) -> None:
        # Nobody writes. Anything else than waiting for the end would be cut off with the thread,
        # so this reads the descriptor: the buffered object is locked while it is read.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        self._asked.set()


def _leave_to_the_listener(_number: int, _frame: FrameType | None) -> None:
    """Without a handler of Python's own nothing is written to the pipe."""
