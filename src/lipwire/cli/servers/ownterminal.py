"""The terminal from which a server was started."""

from __future__ import annotations

import os
import select

from lipwire.domain.closing import Closing


class OwnTerminal(Closing):
    """Tells whether the terminal that controls this process has closed, as the terminal's SIGHUP
    says, and not somebody who sends that signal for another purpose. A context manager."""

    def __init__(self) -> None:
        """Looks for the terminal now; without one, none can close."""
        self._file: int | None = None
        if os.name == "posix":
            try:
                self._file = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            except OSError:
                return  # a service, a container

    def closed(self) -> bool:
        """Return whether there was a terminal that has closed since."""
        if self._file is None:
            return False
        look = select.poll()
        look.register(self._file, select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in look.poll(0))

    def close(self) -> None:
        """Look no more: ``closed`` returns False from now on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
