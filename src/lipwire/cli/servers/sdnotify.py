"""What a server tells the service manager that started it: systemd's protocol, sd_notify(3).

Where the variable NOTIFY_SOCKET names a datagram socket, a service of ``Type=notify`` sends to it
when it is ready and when it stops, and with ``WatchdogSec=`` that it works, or it is started anew.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from typing import Final, Self

from lipwire.domain import LipwireError
from lipwire.domain.closing import Closing

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"
_CHECKS_IN_TIME: Final = 3
"""How often in the time that the watchdog allows it is looked whether the server works."""
_SENT_WITHIN_S: Final = 5.0

_logger = logging.getLogger("lipwire.cli")


class ServiceNotifier(Closing):
    """Tells the service manager about this process. A context manager: after its end it no longer
    reports that the server works.

    Where there is no service manager nothing is sent. Where sending fails, that is logged once and
    otherwise ignored.
    """

    def __init__(self, address: str = "", watchdog_s: float | None = None) -> None:
        """``address`` is the socket in the form of NOTIFY_SOCKET: a path, or "@" and an abstract
        name; empty where there is none. ``watchdog_s`` is the most seconds that may pass between
        two reports that the server works; None where no such reports are wanted."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s: Final = watchdog_s if address else None
        self._failed = False
        self._ended = threading.Event()
        self._watching: threading.Thread | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Self:
        """Return a notifier that follows the variables NOTIFY_SOCKET, WATCHDOG_USEC and
        WATCHDOG_PID of ``environ``, and remove them from it, so that processes which this one
        starts do not report in its place. Without NOTIFY_SOCKET the notifier sends nothing."""
        address = environ.pop(_SOCKET, "")
        within_us = environ.pop(_WATCHDOG, "")
        for_us = environ.pop(_WATCHDOG_PID, "") in ("", str(os.getpid()))
        wanted = for_us and within_us.isdecimal() and int(within_us) > 0
        if not address.startswith(("/", "@")):
            address = ""  # another kind of socket, for virtual machines
        return cls(address, int(within_us) / 1e6 if wanted else None)

    @property
    def watchdog(self) -> bool:
        """Whether the service manager wants regular reports that the server works (``watch``)."""
        return self._watchdog_s is not None

    def ready(self, status: str) -> None:
        """Tell that the server is ready; ``status`` is a line for people."""
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self, status: str) -> None:
        """Tell that the server stops; ``status`` is a line for people."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def watch(self, works: Callable[[float], bool]) -> None:
        """From now on call ``works(timeout_s)`` regularly in a thread, and each time that it
        returns True, report that the server works. Returns at once; may be called once. ``works``
        should return within ``timeout_s`` seconds. A LipwireError that it raises counts as False;
        any other error ends the reports. Does nothing where the service manager wants no such
        reports."""
        if self._watchdog_s is None:
            return
        every_s = self._watchdog_s / _CHECKS_IN_TIME
        self._watching = threading.Thread(
            target=self._watch, args=(works, every_s), name="lipwire-watchdog", daemon=True
        )
        self._watching.start()

    def close(self) -> None:
        """Stop reporting that the server works, and wait until the last call of ``works`` has
        returned."""
        self._ended.set()
        if self._watching is not None:
            self._watching.join()

    def _watch(self, works: Callable[[float], bool], every_s: float) -> None:
        said = True
        while True:
            why = ""
            try:
                now = works(every_s)
            except LipwireError as error:
                now, why = False, f": {error}"
            if self._ended.is_set():
                return
            if now:
                self._send("WATCHDOG=1")
            elif said:
                _logger.error("the server does not answer itself%s", why)
            said = now
            if self._ended.wait(every_s):
                return

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(_SENT_WITHIN_S)
                sending.connect(self._address)
                sending.sendall(message.encode())
        except OSError as error:
            if not self._failed:
                _logger.warning("the service manager cannot be told: %s", error)
            self._failed = True
