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
    """A server as a service: which ``server`` it is ("inference", "compositing" or "serve"), the
    ``program`` and the ``config`` file, both absolute, the system's user ``run_as`` (None: a
    service of the user who installs it, run as that user), and ``drain_timeout_s``, the seconds
    that a server takes at the end until requests in hand are done."""

    server: Server
    program: Path
    config: Path
    run_as: str | None
    drain_timeout_s: float = 30.0

    @property
    def name(self) -> str:
        """The service's name for the service manager: those of the deployment guide, and
        ``lipwire`` for both servers in one process."""
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
        """How many whole seconds the service manager waits after the signal to end before it kills
        the process."""
        return math.ceil(self.drain_timeout_s) + AFTER_DRAINING_S


def installed_program() -> Path:
    """Return the path of the ``lipwire`` that belongs to the running Python, or, where there is
    none beside it, the one that is found in PATH; ``lipwire`` in Python's folder where neither is
    there."""
    name = "lipwire.exe" if os.name == "nt" else "lipwire"
    beside = program_beside(name)
    if not beside.is_file() and (found := shutil.which("lipwire")) is not None:
        return Path(found).absolute()
    return beside
