"""The terminal from which a server was started."""

from __future__ import annotations

import os
import select

from lipwire.domain.closing import Closing


class OwnTerminal(Closing):
    """Tells whether the terminal that controls this process has closed. With it one can tell the
    SIGHUP of a closing terminal from one that somebody sends for another purpose. A context
    manager."""

    def __init__(self) -> None:
        """Opens the terminal of this process; where there is none, ``closed`` is always False."""
        self._file: int | None = None
        if os.name == "posix":
            try:
                self._file = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            except OSError:
                return  # a service, a container

    def closed(self) -> bool:
        """Return whether the terminal has closed since this object was made; False where there was
        none."""
        if self._file is None:
            return False
        look = select.poll()
        look.register(self._file, select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in look.poll(0))

    def close(self) -> None:
        """Stop watching the terminal: ``closed`` returns False from now on."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
