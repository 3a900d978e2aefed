"""Machines of a cluster on one machine: each has a network of its own, at a switch of which its
cable can be pulled, and a small disk of its own.

They are made of Linux's namespaces, as containers are: nothing of them is seen outside, and all is
gone with the process that made them. Python has to run in namespaces of its own for that
(``apart``).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import Final

from lipwire.domain.closing import Closing

_NETWORK: Final = "10.77.0"
HUB: Final = f"{_NETWORK}.1"
"""The address of the process that made the machines, and of what it starts itself."""
_UNSHARED: Final = (
    *("unshare", "--net", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--mount-proc", "--kill-child"),
)
GRPC_PORT: Final = 50052
INFERENCE_PORT: Final = 50051
_RESERVED: Final = f"echo {INFERENCE_PORT},{GRPC_PORT} > /proc/sys/net/ipv4/ip_local_reserved_ports"
"""Connections that a machine makes have one of these ports else, now and then, and a server that
starts there finds its own taken."""
_FILLED_AT_A_TIME: Final = 64 * 1024


def apart(command: Sequence[str]) -> list[str]:
    """Return the command line that runs ``command`` in namespaces of its own, in which machines can
    be made."""
    mapped = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    return [*_UNSHARED, *mapped, *command]


@cache
def why_not() -> str:
    """Return why no machines can be made here, in a few words; empty where they can."""
    for program in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(program, path=_path()) is None:
            return f"needs the program {program}"
    trial = "ip link add trial type bridge && mount -t tmpfs tmpfs /mnt"
    done = subprocess.run(apart(["sh", "-c", trial]), capture_output=True, env=_environ())
    return "" if done.returncode == 0 else "needs namespaces, bridges and mounts of its own"


class Switch:
    """What connects the machines, with the address ``HUB``. In namespaces of their own alone."""

    def __init__(self) -> None:
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "switch", "type", "bridge")
        _run("ip", "addr", "add", f"{HUB}/24", "dev", "switch")
        _run("ip", "link", "set", "switch", "up")
        _run("sh", "-c", _RESERVED)


class Host(Closing):
    """One machine. A context manager."""

    def __init__(self, number: int, disk: Path, disk_mb: int) -> None:
        """``number``, 2 to 250, is the last part of its address, and each machine's own. Its disk
        is mounted at the folder ``disk`` and has ``disk_mb`` MiB."""
        self.address: Final = f"{_NETWORK}.{number}"
        self.disk: Final = disk
        self._cable = f"cable{number}"
        disk.mkdir()
        with ExitStack() as stack:
            _run("mount", "-t", "tmpfs", "-o", f"size={disk_mb}m,mode=700", "tmpfs", str(disk))
            stack.callback(_run, "umount", "--lazy", str(disk))
            # Whoever has a network namespace open keeps it.
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo && exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_environ(),
            )
            stack.callback(holder.communicate)
            assert holder.stdout is not None
            holder.stdout.readline()
            self.within: Final = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
            """Before a command, it runs on this machine."""
            inside = ("netns", str(holder.pid))
            _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", "e0", *inside)
            self.mend()
            for command in (
                ("ip", "link", "set", "lo", "up"),
                ("ip", "addr", "add", f"{self.address}/24", "dev", "e0"),
                ("ip", "link", "set", "e0", "up"),
                ("sh", "-c", _RESERVED),
            ):
                _run(*self.within, *command)
            self._stack = stack.pop_all()

    def cut(self) -> None:
        """Pull the cable: nothing goes in or out any more, and nobody is told."""
        _run("ip", "link", "set", self._cable, "nomaster")

    def mend(self) -> None:
        """Put the cable in again."""
        _run("ip", "link", "set", self._cable, "master", "switch", "up")

    def fill(self) -> None:
        """Fill the disk to its last byte."""
        with (self.disk / "filler").open("ab", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(_FILLED_AT_A_TIME))

    def empty(self) -> None:
        """Remove what ``fill`` has put there."""
        (self.disk / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the machine. Nothing may run on it any more."""
        self._stack.close()


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _environ() -> dict[str, str]:
    return {**os.environ, "PATH": _path()}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environ())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
