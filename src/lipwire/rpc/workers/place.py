"""The processes of one server: each has a number, and a Unix socket that only they can reach."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from lipwire.domain import InvalidInput

_LONGEST_FOLDER: Final = 76
"""Bytes of the folder's own folder: with names of ours, sockets' paths stay below the 104 bytes
that macOS allows (Linux: 108)."""


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """One of ``count`` processes of a server that share a port: its number ``index``, from 0, and
    the folder of the Unix sockets on which they answer each other. It makes no sockets."""

    folder: Path
    index: int
    """Number of this process, 0 to ``count`` - 1."""
    count: int

    @classmethod
    def of_socket(cls, path: Path, count: int) -> "WorkerPlace":
        """Return the place of the process whose gRPC socket is ``path``, among ``count`` processes.
        The file's name is the number of the process, 0 to ``count`` - 1, and ".sock", as in
        "0.sock"; it need not exist. Raises InvalidInput for a file of another name."""
        name = path.stem
        if path.suffix != ".sock" or not name.isdecimal() or int(name) >= count:
            raise InvalidInput(
                f"a worker's socket is {path}; allowed are 0.sock to {count - 1}.sock"
            )
        return cls(path.parent, int(name), count)

    def socket(self, index: int | None = None) -> Path:
        """Return the path of the Unix socket on which process number ``index`` answers the others'
        gRPC calls; None for this process."""
        return self.folder / f"{self.index if index is None else index}.sock"

    def web_socket(self, index: int | None = None) -> Path:
        """Return the path of the Unix socket on which process number ``index`` answers web requests
        about its sessions; None for this process."""
        return self.folder / f"{self.index if index is None else index}.web"

    def metrics_socket(self, index: int | None = None) -> Path:
        """Return the path of the Unix socket on which process number ``index`` answers with its
        metrics; None for this process."""
        return self.folder / f"{self.index if index is None else index}.numbers"

    @property
    def session_prefix(self) -> str:
        """Text that the ids of this process's live sessions begin with, so that ``owner_of`` tells
        them from those of the others."""
        return f"{self.index}."

    def owner_of(self, session_id: str) -> int | None:
        """Return the number of the process that has the live session ``session_id``, by what the id
        begins with; None where it names none of these processes."""
        number, dot, _ = session_id.partition(".")
        if not dot or number not in map(str, range(self.count)):
            return None
        return int(number)

    @property
    def others(self) -> tuple[int, ...]:
        """The numbers of the server's other processes, rising."""
        return tuple(index for index in range(self.count) if index != self.index)


def address_of(socket: Path) -> str:
    """Return the gRPC address (``unix:...``) of the Unix socket at the path ``socket``."""
    return f"unix:{quote(str(socket.absolute()))}"


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Make a folder for the sockets of a server's processes, which only this user can read, give
    the ``with`` block its path, and remove it afterwards. A context manager."""
    base = tempfile.gettempdir()
    short = len(os.fsencode(base)) <= _LONGEST_FOLDER
    with tempfile.TemporaryDirectory(
        prefix="lipwire-", dir=base if short else "/tmp", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
