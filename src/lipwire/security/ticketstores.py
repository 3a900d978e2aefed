"""Where the processes of one server keep what their tickets allow."""

import logging
from pathlib import Path
from typing import Final, Protocol

from lipwire.domain import StorageFailed
from lipwire.domain.newfiles import write_file

_LOG: Final = logging.getLogger("lipwire.security")


class TicketStore(Protocol):
    """Keeps texts by name, for all processes of a server: what tickets allow, under the hashes of
    the tickets (hexadecimal digits). Thread-safe. Nothing expires by itself."""

    def put(self, name: str, text: str) -> None:
        """Keep ``text`` as ``name``, hexadecimal digits, in place of the text that has that name.
        Raises StorageFailed where that is not possible."""
        ...

    def get(self, name: str) -> str | None:
        """Return the text that is kept as ``name``, hexadecimal digits; None where there is none,
        or it cannot be read."""
        ...

    def take(self, name: str) -> bool:
        """Forget the text of ``name``, and return whether it was there. Where several callers do so
        at the same time, only one gets True."""
        ...


class OwnStore:
    """A ``TicketStore`` in the memory of one process. Thread-safe."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def put(self, name: str, text: str) -> None:
        """Keep ``text`` as ``name``, hexadecimal digits, in place of the text that has that
        name."""
        self._texts[name] = text

    def get(self, name: str) -> str | None:
        """Return the text of ``name``; None where there is none."""
        return self._texts.get(name)

    def take(self, name: str) -> bool:
        """Forget the text of ``name``, and return whether it was there. Where several callers do so
        at the same time, only one gets True."""
        return self._texts.pop(name, None) is not None


class FolderStore:
    """A ``TicketStore`` of several processes: a folder with a file for each text. Only one process
    can remove a file, so only one gets True from ``take``. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is made where it is missing, for this user alone; its parent folder has to
        exist. Raises StorageFailed where ``folder`` cannot be made."""
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFailed(f"tickets cannot be kept: {error.strerror}") from None

    def put(self, name: str, text: str) -> None:
        """Keep ``text`` as ``name``, hexadecimal digits, in place of the text that has that name.
        Raises StorageFailed where the file cannot be written."""
        try:
            write_file(self._folder / name, text.encode())
        except StorageFailed as error:  # whose text has the folder, which is no client's business
            _LOG.error("tickets cannot be kept: %s", error)
            raise StorageFailed("tickets cannot be kept now") from None

    def get(self, name: str) -> str | None:
        """Return the text of ``name``; None where there is none, or it cannot be read."""
        try:
            return (self._folder / name).read_text("utf-8")
        except OSError:
            return None

    def take(self, name: str) -> bool:
        """Forget the text of ``name``, and return whether that was done: False where there is none,
        or its file cannot be removed. Where several callers do so at the same time, only one gets
        True."""
        try:
            (self._folder / name).unlink()
        except OSError:
            return False
        return True
