"""The addresses that servers are to listen on: whether they are free, and who has them else."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lipwire.cli.doctor.checks import Check, fault, not_applicable, ok, warning

if TYPE_CHECKING:
    from lipwire.config import ServerConfig

_LISTENING: Final = "0A"
"""TCP_LISTEN, as /proc/net/tcp writes it (proc_pid_net(5), include/net/tcp_states.h)."""
_WANTED: Final = "free, or used by lipwire"


def ports(config: ServerConfig) -> Iterator[Check]:
    """Yield a check (``port``) of each address that ``config`` names for a server to listen on."""
    from lipwire.config import CompositingConfig, InferenceConfig

    if isinstance(config, CompositingConfig | InferenceConfig):
        server = config.server
        yield port("server.port", server.host, server.port)
        if server.profile_port is not None:
            for number in range(server.workers if server.profile_port else 1):
                yield port("server.profile_port", "127.0.0.1", server.profile_port + number)
        metrics = config.metrics
        # Without a port of its own in the file, a server takes another where this one is taken.
        if metrics.enabled and "port" in metrics.model_fields_set:
            yield port("metrics.port", metrics.host, metrics.port)
    if isinstance(config, CompositingConfig):
        if config.web.enabled is False:
            yield not_applicable("web.port", "web.enabled is false")
        else:
            yield port("web.port", config.web.host, config.web.port)


def port(name: str, host: str, number: int, system: Path = Path("/")) -> Check:
    """Check that a server can listen on port ``number`` of ``host``, a name or an address of this
    machine, by listening there for a moment; a port on which Lipwire listens already is OK too.
    Port 0 (any free port) is NOT_APPLICABLE. ``name`` is the name of the check. ``system`` is the
    folder that contains ``proc``, where the process is looked up that uses a port."""
    if number == 0:
        return not_applicable(name, "0: any free port")
    from lipwire.config.values import join_address

    address = join_address(host, number)
    try:
        _listen(host, number)
    except socket.gaierror:
        return fault(name, f"{address}: no such name", "an address of this machine", "change host")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(name, address, number, system)
        if error.errno == errno.EADDRNOTAVAIL:
            return fault(
                name, f"{address} is not of this machine", "an address of this machine",
                "change host; 0.0.0.0 is every network of this machine",
            )  # fmt: skip
        if error.errno == errno.EACCES:
            return fault(
                name, f"{address} is not allowed to this user", _WANTED,
                "take a port from 1024 on, or allow it (CAP_NET_BIND_SERVICE)",
            )  # fmt: skip
        return fault(name, f"{address}: {(error.strerror or '').lower()}", _WANTED, "change it")
    return ok(name, f"{address} is free", _WANTED)


def _listen(host: str, number: int) -> None:
    """Listen there for a moment. Raises OSError."""
    try:
        found = ipaddress.ip_address(host)
        family = socket.AF_INET6 if found.version == 6 else socket.AF_INET
        address: tuple[object, ...] = (host, number)
    except ValueError:
        (family, _, _, _, address), *_ = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        if os.name == "posix":
            # Connections of a server that has ended do not count.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)
        trial.listen(1)


def _taken(name: str, address: str, number: int, system: Path) -> Check:
    owner = _owner(number, system)
    if owner is None:
        return warning(
            name, f"{address} is taken, by a process that cannot be seen from here", _WANTED,
            "run this as the server's user, or ask it: lipwire doctor --server",
        )  # fmt: skip
    process, command = owner
    seen = f"{address} is taken, by process {process} ({command})"
    if "lipwire" in command:
        return ok(name, seen, _WANTED)
    return fault(name, seen, _WANTED, "end that program, or change the port")


def _owner(number: int, system: Path) -> tuple[int, str] | None:
    """(process, its program) of who listens on port ``number``; None where that cannot be seen."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = (system / "proc/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (row.split() for row in rows):
            listening = len(fields) > 9 and fields[3] == _LISTENING
            if listening and int(fields[1].rpartition(":")[2], 16) == number:
                inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return None
    for folder in (system / "proc").glob("[0-9]*"):
        if inodes.isdisjoint(_open_in(folder)):
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended
        return int(folder.name), _program([word.decode(errors="replace") for word in words if word])
    return None


def _open_in(folder: Path) -> Iterator[str]:
    """What the process has open whose folder in proc it is; nothing of somebody else's."""
    try:
        links = list((folder / "fd").iterdir())
    except OSError:
        return
    for link in links:
        with suppress(OSError):  # closed meanwhile
            yield os.readlink(link)  # noqa: PTH115 - a socket's is no path


def _program(words: list[str]) -> str:
    """A command line without folders and options: "python lipwire serve"."""
    if len(words) > 2 and words[1:2] == ["-m"]:
        del words[1]
    named = [Path(word).name for word in words[:3] if not word.startswith("-")]
    return re.sub(r"[^\w .:+-]", "?", " ".join(named))[:80]
