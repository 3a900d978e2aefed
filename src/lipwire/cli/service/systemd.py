"""Units of systemd."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lipwire.cli.service.definition import ServiceDefinition
from lipwire.domain import InvalidInput

SYSTEM_FOLDER: Final = Path("/etc/systemd/system")

_HEAD: Final = """\
[Unit]
Description={description}
Documentation=https://lipwire.github.io/lipwire/deployment.html
After={after}
Wants=network-online.target
StartLimitIntervalSec=300
StartLimitBurst=5

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
EnvironmentFile=-{environment}
# A package that is not compiled yet is compiled first where it is preloaded.
TimeoutStartSec=900
# The server sends a sign of life while its own health check is answered.
WatchdogSec=60
Restart=on-failure
RestartSec=2
# SIGTERM ends it when what is in hand is done, or after drain_timeout, which has to be less.
KillMode=mixed
TimeoutStopSec={stop_s}
# A worker process that the kernel ended for its memory is started anew by its parent.
OOMPolicy=continue
LimitNOFILE=65536
# MemoryHigh=14G
# MemoryMax=16G
"""
_SANDBOX: Final = """
User={user}
Group={user}
UMask=0077
StateDirectory=lipwire
CacheDirectory=lipwire
LogsDirectory=lipwire
StateDirectoryMode=0750
CacheDirectoryMode=0750
LogsDirectoryMode=0750
Environment=HOME=/var/lib/lipwire XDG_CACHE_HOME=/var/cache PYTHONDONTWRITEBYTECODE=1
WorkingDirectory=/var/lib/lipwire

# What it may see and do. Avatars are read: those in {home} are not seen at all.
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
PrivateUsers=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
"""
_NO_DEVICES: Final = """\
MemoryDenyWriteExecute=yes
PrivateDevices=yes
DevicePolicy=closed
"""
_GPUS: Final = """\
# GPUs, and no other devices. Their drivers make code in memory: no MemoryDenyWriteExecute.
DevicePolicy=closed
DeviceAllow=char-nvidia rw
DeviceAllow=char-nvidia-frontend rw
DeviceAllow=char-nvidia-uvm rw
DeviceAllow=char-nvidia-caps rw
"""


def unit_of(service: ServiceDefinition) -> str:
    """Return the text of the unit file for ``service``.

    A system service runs as the user ``run_as`` and has no access to parts of the system that it
    does not need. A user's service has no such limits, because most of them only root can set.
    Raises InvalidInput where a path has a character that a unit cannot contain.
    """
    after = "network-online.target"
    if service.server == "compositing":
        after += " inference-server.service"
    environment = service.config.with_suffix(".env")
    text = _HEAD.format(
        description=service.description,
        after=after,
        command=_command(service.arguments),
        environment=_specifiers(_checked(str(environment))),
        stop_s=service.stop_timeout_s,
    )
    if service.run_as is None:
        return f"{text}NoNewPrivileges=yes\n\n[Install]\nWantedBy=default.target\n"
    home = "/home, /root and /run/user"
    in_home = any(
        path.is_relative_to(folder)
        for path in (service.program, service.config)
        for folder in ("/home", "/root", "/run/user")
    )
    text += _SANDBOX.format(
        user=service.run_as, home=home, protect_home="read-only" if in_home else "yes"
    )
    if in_home:
        text = text.replace(f"those in {home} are not seen at all", f"and {home} not written to")
    text += _NO_DEVICES if service.server == "compositing" else _GPUS
    return f"{text}\n[Install]\nWantedBy=multi-user.target\n"


def unit_path(service: ServiceDefinition) -> Path:
    """Return where the unit file of ``service`` belongs: in the system's folder, or in that of this
    user where ``run_as`` is None. Nothing is written."""
    name = f"{service.name}.service"
    if service.run_as is not None:
        return SYSTEM_FOLDER / name
    config = os.environ.get("XDG_CONFIG_HOME", "").strip()
    base = Path(config) if config else Path("~/.config").expanduser()
    return base / "systemd" / "user" / name


def next_commands(service: ServiceDefinition, *, removed: bool) -> list[str]:
    """Return the shell commands that somebody has to run after the unit file of ``service`` was
    written, to start the service; with ``removed``, those to run after it was removed, to end the
    service."""
    control = "systemctl --user" if service.run_as is None else "systemctl"
    if removed:
        return [f"{control} stop {service.name}", f"{control} daemon-reload"]
    return [f"{control} daemon-reload", f"{control} enable --now {service.name}"]


def _command(arguments: Sequence[str]) -> str:
    """``arguments`` as ExecStart= takes them, systemd.service(5): the program is not expanded."""
    program, *others = arguments
    if any(character in program for character in "\"'\\"):
        raise InvalidInput(f"the program is {program}; systemd allows no quotes and no backslash")
    words = [word.replace("$", "$$") for word in others]
    return " ".join(_quoted(word) for word in [program, *words])


def _checked(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise InvalidInput(f"a path is {text!r}; a unit cannot hold control characters")
    return text


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    text = _specifiers(_checked(word))
    if not any(character in text for character in " \"'\\;"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
