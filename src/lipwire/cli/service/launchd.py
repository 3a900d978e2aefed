"""Property lists of macOS's launchd."""

from __future__ import annotations

import plistlib
from pathlib import Path
from typing import Any, Final

from lipwire.cli.service.definition import ServiceDefinition

_LABEL: Final = "io.github.lipwire."
_SYSTEM_FOLDER: Final = Path("/Library/LaunchDaemons")


def plist_of(service: ServiceDefinition) -> str:
    """Return the text (XML) of the property list for ``service``, as launchd.plist(5) describes it.
    Nothing is written."""
    logs = Path("/Library/Logs" if service.run_as else Path("~/Library/Logs").expanduser())
    content: dict[str, Any] = {
        "Label": _LABEL + service.name,
        "ProgramArguments": list(service.arguments),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": service.stop_timeout_s,
        "ProcessType": "Interactive",  # else its processor time is limited
        "SoftResourceLimits": {"NumberOfFiles": 65536},
        "HardResourceLimits": {"NumberOfFiles": 65536},
        "Umask": 0o077,
        "StandardOutPath": str(logs / f"{service.name}.log"),
        "StandardErrorPath": str(logs / f"{service.name}.log"),
    }
    if service.run_as is not None:
        content["UserName"] = service.run_as
    return plistlib.dumps(content, sort_keys=False).decode()


def plist_path(service: ServiceDefinition) -> Path:
    """Return where the property list of ``service`` belongs: in the system's folder, or in that of
    this user where ``run_as`` is None. Nothing is written."""
    name = f"{_LABEL}{service.name}.plist"
    if service.run_as is not None:
        return _SYSTEM_FOLDER / name
    return Path("~/Library/LaunchAgents").expanduser() / name


def next_commands(service: ServiceDefinition, *, removed: bool) -> list[str]:
    """Return the shell commands that somebody has to run after the property list of ``service`` was
    written, to start the service; with ``removed``, those to run after it was removed, to end the
    service."""
    domain = "gui/$(id -u)" if service.run_as is None else "system"
    if removed:
        return [f"launchctl bootout {domain}/{_LABEL}{service.name}"]
    return [f"launchctl bootstrap {domain} {plist_path(service)}"]
