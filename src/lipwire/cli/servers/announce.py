"""What a server prints while it starts: the guide's sections, plain enough for any terminal."""

import logging
import platform
from collections.abc import Mapping
from contextlib import suppress

import typer

_WIDTH = 80
_logger = logging.getLogger("lipwire.cli")


class Announcer:
    """Prints for people what a server reports while it starts. With ``as_json`` the same is logged
    instead, and with ``quiet`` nothing is printed or logged. Errors of standard output are ignored.
    """

    def __init__(self, server: str, *, as_json: bool, quiet: bool = False) -> None:
        """``server`` is the server's name in the heading."""
        from lipwire import __version__

        self._server = server
        self._as_json = as_json
        self._quiet = quiet
        self._version = __version__

    def begin(self) -> None:
        """Print, or log, the name and version of the server."""
        if self._as_json:
            self._log("starting", {"version": self._version, "python": platform.python_version()})
        else:
            self._print("=" * _WIDTH, f"Lipwire {self._version}: {self._server}", "=" * _WIDTH)

    def section(self, heading: str, facts: Mapping[str, object]) -> None:
        """Print, or log, a heading, and under it one line "name: value" for each of ``facts``."""
        if self._as_json:
            self._log(heading, facts)
        else:
            lines = (f"   {name}: {value}" for name, value in facts.items())
            self._print(heading, *lines, "")

    def ready(self, port: int) -> None:
        """Print, or log, that the server accepts connections. ``port`` appears only in the log."""
        if self._as_json:
            self._log("ready", {"port": port})
        else:
            self._print("Ready to accept connections", "=" * _WIDTH)

    def _print(self, *lines: str) -> None:
        if not self._quiet:
            with suppress(OSError):  # a server serves without whoever reads it, as with its log
                typer.echo("\n".join(lines))

    def _log(self, message: str, facts: Mapping[str, object]) -> None:
        if not self._quiet:
            extra = {name.lower().replace(" ", "_"): value for name, value in facts.items()}
            # A record's own attributes may not be overwritten; a prefix keeps clear of all of them.
            _logger.info(message, extra={"server": self._server, "facts": extra})
