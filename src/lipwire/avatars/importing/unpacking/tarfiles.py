"""TAR files, plain or compressed, read from the front to the end within fixed memory.

Python's ``tarfile`` reads a header of an extended header's size into memory, whatever that is, and
keeps all entries. Here such headers have a limit, and what a sparse file, a link or a device is, is
only named. Format: POSIX.1-2017, pax; GNU tar's long names
(https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, cast

MAX_EXTENDED_BYTES: Final = 1 << 20
"""Of an extended header: a path and times take some hundred bytes, attributes of macOS more."""
MAX_EXTENDED: Final = 8
"""Extended headers before one entry; two or three are usual."""
XZ_MEMORY_BYTES: Final = 160 << 20
"""What reading an xz file may take; ``xz -9`` makes those that need 65 MiB."""
_BLOCK: Final = tarfile.BLOCKSIZE
_PIECE_BYTES: Final = 1 << 20
_LENGTH_DIGITS: Final = 8
_FILES: Final = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX: Final = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_SPARSE: Final = b"GNU.sparse."


class Readable(Protocol):
    """A source of bytes: ``read(n)`` returns at most ``n`` bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry: its ``name`` as it is written, whether it is a file, a folder or something else
    (``kind``), and how many bytes a file has (``size_bytes``), 0 for anything else."""

    name: str
    kind: Literal["file", "folder", "other"]
    size_bytes: int


@contextmanager
def decompressed(path: Path) -> Iterator[Readable]:
    """Context manager: open the file ``path`` for reading bytes, decompressed where its first bytes
    say gzip, bzip2 or xz, else as it is. Raises OSError where it cannot be opened. Reading raises
    EOFError where it is cut off, and zlib.error, OSError or lzma.LZMAError where it is damaged."""
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        begin = raw.read(6)
        raw.seek(0)
        if begin.startswith(b"\x1f\x8b"):
            yield cast(Readable, stack.enter_context(gzip.GzipFile(fileobj=raw)))
        elif begin.startswith(b"BZh"):
            yield stack.enter_context(bz2.BZ2File(raw))
        elif begin == b"\xfd7zXZ\0":
            yield _Xz(raw)
        else:
            yield raw


def tar_entries(stream: Readable) -> Iterator[tuple[TarEntry, Readable]]:
    """Yield (entry, content) for each entry of the TAR file ``stream``; ``content`` has the entry's
    bytes and can be read until the next entry is asked for. At the end the rest of ``stream`` is
    read, so that its checksum is compared.

    Raises tarfile.ReadError where the file is damaged or cut off, or holds an extended header of
    more than ``MAX_EXTENDED_BYTES`` or more than ``MAX_EXTENDED`` of them before one entry. Errors
    of reading ``stream`` are passed on.
    """
    while (found := _next_entry(stream)) is not None:
        content = _Content(stream, found.size_bytes)
        yield found, content
        _skip(content)
        _exactly(stream, -found.size_bytes % _BLOCK)
    while stream.read(_PIECE_BYTES):
        pass


def _next_entry(stream: Readable) -> TarEntry | None:
    """The next file, folder or other thing, with what the extended headers before it say."""
    name: str | None = None
    size: int | None = None
    sparse = False
    for _ in range(MAX_EXTENDED + 1):
        block = stream.read(_BLOCK)
        if not block:
            raise tarfile.ReadError("it is cut off: its end is not marked")
        try:
            # POSIX leaves the encoding open; those of today write UTF-8.
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: the end
            return None
        if header.size < 0:
            raise tarfile.ReadError(f"an entry of {header.size} bytes")
        if header.type == tarfile.GNUTYPE_LONGNAME:
            name = _text(_extended(stream, header.size).partition(b"\0")[0])
        elif header.type in _PAX:
            for key, value in _records(_extended(stream, header.size)):
                if key == b"path":
                    name = _text(value)
                elif key == b"size":
                    size = _number(value)
                sparse |= key.startswith(_SPARSE)
        elif header.type == tarfile.XGLTYPE:
            keys = {key for key, _ in _records(_extended(stream, header.size))}
            if keys & {b"path", b"size"}:
                raise tarfile.ReadError("one name or size for all entries")
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            _extended(stream, header.size)
        else:
            return _entry(header, header.name if name is None else name, size, sparse)
    raise tarfile.ReadError(f"more than {MAX_EXTENDED} extended headers before an entry")


def _entry(header: tarfile.TarInfo, name: str, size: int | None, sparse: bool) -> TarEntry:
    if header.type in _FILES and not sparse:
        if header.type == tarfile.AREGTYPE and name.endswith("/"):  # before POSIX
            return TarEntry(name, "folder", 0)
        return TarEntry(name, "file", header.size if size is None else size)
    return TarEntry(name, "folder" if header.type == tarfile.DIRTYPE else "other", 0)


def _extended(stream: Readable, size_bytes: int) -> bytes:
    """What an extended header holds."""
    if size_bytes > MAX_EXTENDED_BYTES:
        raise tarfile.ReadError(
            f"an extended header of {size_bytes} bytes; at most {MAX_EXTENDED_BYTES} are read"
        )
    data = _exactly(stream, size_bytes)
    _exactly(stream, -size_bytes % _BLOCK)
    return data


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of pax's records: "LENGTH KEY=VALUE" and a line end each, the length being that
    of the whole record."""
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + _LENGTH_DIGITS + 1)
        length = _number(data[at:blank]) if blank > at else 0
        record = data[blank + 1 : at + length]
        if at + length > len(data) or not record.endswith(b"\n"):
            raise tarfile.ReadError("an extended header is damaged")
        key, _, value = record[:-1].partition(b"=")
        yield key, value
        at += length


def _number(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 2 * _LENGTH_DIGITS:
        raise tarfile.ReadError("an extended header is damaged")
    return int(digits)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _exactly(stream: Readable, size_bytes: int) -> bytes:
    data = stream.read(size_bytes) if size_bytes else b""
    if len(data) < size_bytes:
        raise tarfile.ReadError("it is cut off")
    return data


def _skip(content: "_Content") -> None:
    while content.read(_PIECE_BYTES):
        pass


class _Content:
    """The bytes of one entry."""

    def __init__(self, stream: Readable, size_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = size_bytes

    def read(self, size: int, /) -> bytes:
        wanted = min(size, self._left_bytes)
        data = self._stream.read(wanted) if wanted else b""
        if wanted and not data:
            raise tarfile.ReadError("it is cut off")
        self._left_bytes -= len(data)
        return data


class _Xz:
    """What is in an xz file. Python's own ``lzma.open`` takes any dictionary that a file asks for,
    which may have gigabytes."""

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._decompressor = self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size > 0:
            if self._decompressor.eof:  # files may be several, one behind the other
                rest = self._decompressor.unused_data or self._raw.read(_PIECE_BYTES)
                while rest and not rest.strip(b"\0"):  # padding
                    rest = self._raw.read(_PIECE_BYTES)
                if not rest:
                    break
                self._decompressor = self._new()
                data = self._decompressor.decompress(rest.lstrip(b"\0"), size)
            else:
                data = self._decompressor.decompress(self._more(), size)
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _more(self) -> bytes:
        if not self._decompressor.needs_input:
            return b""
        data = self._raw.read(_PIECE_BYTES)
        if not data:
            raise EOFError("it is cut off")
        return data
