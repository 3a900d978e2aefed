"""ZIP files whose list of files is looked at before Python makes an object of each of them.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

_BYTES_AN_ENTRY: Final = 128
"""Of the list for each file: 46, and the name, times and owner."""
_ENTRY: Final = b"PK\x01\x02"
"""Each entry of the list begins so."""


class TooManyEntriesError(Exception):
    """A ZIP file lists more files than are allowed."""


@contextmanager
def opened_zip(path: Path, max_entries: int) -> Iterator[zipfile.ZipFile]:
    """Context manager: open the ZIP file ``path`` for reading.

    Raises TooManyEntriesError where it lists more than ``max_entries`` files, before memory is used
    for them; zipfile.BadZipFile where it is damaged, or its list has more than 128 bytes for each
    of ``max_entries`` files and more than 1 MiB; NotImplementedError where it is of a kind that
    zipfile does not read, ValueError where zipfile cannot read its list; and OSError where the file
    cannot be read.
    """
    with (
        path.open("rb") as file,
        zipfile.ZipFile(cast(IO[bytes], _Listed(file, max_entries))) as opened,
    ):
        yield opened


class _Listed:
    """What ``zipfile`` reads. It has the list at once; all other reads are smaller: the end of the
    file, where nothing is said of a size, and pieces of what is unpacked."""

    def __init__(self, file: IO[bytes], max_entries: int) -> None:
        self._file = file
        self._max_entries = max_entries
        self._max_bytes = max(1 << 20, max_entries * _BYTES_AN_ENTRY)
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1, /) -> bytes:
        if size > self._max_bytes:
            raise zipfile.BadZipFile(
                f"its list of files has {size} bytes; at most {self._max_bytes} are read"
            )
        data = self._file.read(size)
        if data.startswith(_ENTRY) and data.count(_ENTRY) > self._max_entries:
            raise TooManyEntriesError
        return data
