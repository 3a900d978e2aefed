"""What is known of a server that is to be a service, apart from the service manager."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lipwire.domain.pythonprocess import program_beside

Server = Literal["inference", "compositing", "serve"]

AFTER_DRAINING_S: Final = 30
"""How long a server may take to end when it has drained, until it is killed."""
_NAMES: Final[dict[Server, str]] = {
    "inference": "inference-server",
    "compositing": "compositing-server",
    "serve": "lipwire",
}
_COMMANDS: Final[dict[Server, str]] = {
    "inference": "inference-server",
    "compositing": "compositing-server",
    "serve": "serve",
}
_DESCRIPTIONS: Final[dict[Server, str]] = {
    "inference": "Lipwire inference server",
    "compositing": "Lipwire compositing server",
    "serve": "Lipwire, both servers in one process",
}


@dataclass(frozen=True, slots=True)
class ServiceDefinition:
    """A server as a service: which ``server`` it is ("inference", "compositing" or "serve"), and
    the absolute paths of the ``program`` and of the ``config`` file. ``run_as`` is the system's
    user that the service runs as; None makes it a service of the user who installs it.
    ``drain_timeout_s`` is how many seconds the server may take at its end to finish requests in
    hand."""

    server: Server
    program: Path
    config: Path
    run_as: str | None
    drain_timeout_s: float = 30.0

    @property
    def name(self) -> str:
        """The name under which the service manager knows the service: inference-server,
        compositing-server, or ``lipwire`` for both servers in one process."""
        return _NAMES[self.server]

    @property
    def description(self) -> str:
        """A line for people that says what the service is."""
        return _DESCRIPTIONS[self.server]

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line that starts the server, the program first."""
        return (str(self.program), _COMMANDS[self.server], "--config", str(self.config))

    @property
    def stop_timeout_s(self) -> int:
        """How many whole seconds the service manager waits after SIGTERM before it kills the
        process: ``drain_timeout_s``, rounded up, and 30 more."""
        return math.ceil(self.drain_timeout_s) + AFTER_DRAINING_S


def installed_program() -> Path:
    """Return the absolute path of the ``lipwire`` program beside the running Python or, where there
    is none, of the first one in PATH. Where neither exists, returns the path beside Python all the
    same."""
    name = "lipwire.exe" if os.name == "nt" else "lipwire"
    beside = program_beside(name)
    if not beside.is_file() and (found := shutil.which("lipwire")) is not None:
        return Path(found).absolute()
    return beside
