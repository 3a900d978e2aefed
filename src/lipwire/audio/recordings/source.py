"""Where a recording's bytes come from: a file, an open file, bytes, a pipe."""

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, cast

from lipwire.domain import InvalidInput, StorageFailed

MAX_SPOOLED_BYTES: Final = 8 * 10**9
"""The most that is taken from a pipe: four hours of 48 kHz stereo in 32 bits are 5.5 GB."""

_PIECE_BYTES: Final = 1 << 20
_BYTES: Final = "what the bytes hold (a file's content; samples belong into an array)"


class Readable(Protocol):
    """An open binary file: io.BytesIO, what open(..., "rb") returns, and the like."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, empty at the end of the file."""


RecordingFile = str | os.PathLike[str] | bytes | bytearray | memoryview | Readable
"""A recording as a file: its path, its content, or itself, opened as binary."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open recording: its ``name`` for messages, as the caller gave it; the ``file``, open for
    reading bytes and seekable, in which the recording begins at position 0; and its length in
    bytes."""

    name: str  # for messages: what the caller gave
    file: BinaryIO  # can be read and sought in; position 0 is where the recording begins
    size_bytes: int


class Part(io.RawIOBase):
    """The bytes from offset ``start`` up to but without ``end`` of the seekable binary file
    ``file``, as a read-only file of its own.

    It has a position of its own, and sets that of ``file`` at each read; no other thread may use
    ``file`` meanwhile. Closing it leaves ``file`` open.
    """

    def __init__(self, file: Any, start: int, end: int) -> None:
        self._file = file
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        """Return True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: its position can be set with ``seek``."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the beginning of the part."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position and return it, in bytes from the beginning of the part. ``offset``
        counts bytes from the place that ``whence`` names: the beginning (os.SEEK_SET), the position
        (SEEK_CUR) or the end (SEEK_END)."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Read and return up to ``size`` bytes, or all that are left where ``size`` is None or
        negative; empty at the end."""
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        self._file.seek(self._start + self._position)
        data: bytes = self._file.read(wanted)
        self._position += len(data)
        return data


@contextmanager
def open_source(recording: object) -> Iterator[Source]:
    """Context manager: open ``recording``, a ``RecordingFile`` (a file's path, its bytes, or a file
    opened as binary), for the block, and yield its ``name`` for messages, a seekable binary
    ``file`` in which it begins at position 0, and its length ``size_bytes``.

    A named pipe and a file that cannot be sought in are read to their end, which may take long, and
    copied to a temporary file without a name, which disappears when the process ends at the latest.
    A file that the caller has opened is read from its position on and left open; its position
    afterwards may be any.

    Raises InvalidInput for another type, and where there is no such file, or it is empty, a folder,
    a device, open as text, or a pipe with more than 8 GB; StorageFailed where a pipe cannot be
    copied.
    """
    if isinstance(recording, (str, os.PathLike)):
        with _opened(recording) as source:
            yield source
    elif isinstance(recording, (bytes, bytearray, memoryview)):
        yield _not_empty(Source(_BYTES, io.BytesIO(recording), len(recording)))
    elif callable(getattr(recording, "read", None)):
        with _given_open(cast(Readable, recording)) as source:
            yield source
    else:
        raise InvalidInput(
            f"a recording of type {type(recording).__name__}; allowed: a path, an open binary file,"
            " the bytes of a file"
        )


@contextmanager
def _opened(recording: "str | os.PathLike[str]") -> Iterator[Source]:
    path = Path(os.fsdecode(recording))
    if "\0" in str(path):
        raise InvalidInput(f"{str(path)!r} cannot be a file's name")
    try:
        if not path.exists():
            raise InvalidInput(f"there is no file {path}")
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
            raise InvalidInput(f"{path} is not a file; allowed: an audio or video file, a pipe")
        file = path.open("rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        if stat.S_ISREG(mode):
            yield _not_empty(Source(str(path), file, os.fstat(file.fileno()).st_size))
        else:
            with _spooled(str(path), file) as source:
                yield source


@contextmanager
def _given_open(file: Readable) -> Iterator[Source]:
    given: Any = file
    name = getattr(file, "name", None)
    label = name if isinstance(name, str) else "the recording"
    label = "standard input" if label == "<stdin>" else label
    try:
        if not isinstance(given.read(0), bytes):
            raise InvalidInput(f"{label} is open as text; allowed: a file opened as binary ('rb')")
        try:
            start = given.tell()
            end = given.seek(0, os.SEEK_END)
            given.seek(start)
        except (OSError, AttributeError):  # it cannot be sought in
            start = end = None
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{label} cannot be read: {error}") from error
    if start is not None and end is not None:
        part = cast(BinaryIO, Part(given, start, end))
        yield _not_empty(Source(label, part, max(0, end - start)))
    else:
        with _spooled(label, file) as source:
            yield source


@contextmanager
def _spooled(name: str, file: Any) -> Iterator[Source]:
    """A copy of what is still to be read of ``file``, for as long as the block lasts."""
    with ExitStack() as stack:
        with _storage_errors(name):
            copy = stack.enter_context(tempfile.TemporaryFile(prefix="lipwire-"))
        size = 0
        while piece := _read(name, file):
            size += len(piece)
            if size > MAX_SPOOLED_BYTES:
                raise InvalidInput(
                    f"{name} is longer than {MAX_SPOOLED_BYTES} bytes, the most taken from a pipe"
                )
            with _storage_errors(name):
                copy.write(piece)
        with _storage_errors(name):
            copy.flush()
        yield _not_empty(Source(name, cast(BinaryIO, copy), size))


def _read(name: str, file: Any) -> bytes:
    try:
        piece: bytes = file.read(_PIECE_BYTES)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{name} cannot be read: {error}") from error
    return piece


@contextmanager
def _storage_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{name} cannot be copied to {tempfile.gettempdir()}: {error.strerror}"
        ) from error


def _not_empty(source: Source) -> Source:
    if source.size_bytes == 0:
        raise InvalidInput(f"{source.name} is empty (0 bytes)")
    return source
