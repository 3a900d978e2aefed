"""One memory-mapped file of arrays: the form in which a part of a compiled avatar is kept.

    offset 0      prelude: magic, version, CRC-32 of the header, its place, the file's length
    offset 4096   sections, each on a page boundary so that each is read and dropped by itself
    at the end    header: JSON with the part's name, its key, small facts, and where sections are

All numbers are little-endian. The prelude is written last, and a file shorter or longer than it
says, or with a header of another sum, is damaged. Sections carry no sum: checking one would read
all of it.
"""

import errno
import json
import math
import mmap
import struct
import zlib
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

FORMAT_VERSION: Final = 5
"""Raised whenever what is inside any part changes its meaning."""

# As in PNG: a byte above 127, a line ending of each kind and an end-of-file mark show a mangled
# copy.
_MAGIC: Final = b"\x89LWP\r\n\x1a\n"
_PRELUDE: Final = struct.Struct("<8sIIQQQ")
_PAGE_BYTES: Final = 4096
_MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
_DTYPES: Final = {"|u1": np.uint8, "<i4": np.int32, "<i8": np.int64}

AnyArray = npt.NDArray[Any]


class ContainerDamagedError(Exception):
    """The file of a compiled part is damaged or of another version; the part has to be compiled
    again."""


class ContainerWriter:
    """Writes a container, a file of named sections of bytes and arrays in which a compiled part is
    stored, to ``stream``: open for writing bytes, seekable, empty, and the caller's to close.

    Sections are written with ``begin`` and ``append``, or with ``array``, each name once;
    ``finish``, called last, makes the file valid. Errors of the stream, OSError, are passed on. Not
    thread-safe.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._position = 0
        self._sections: dict[str, dict[str, Any]] = {}
        self._open: str | None = None
        self._pad()
        self._write(bytes(_PAGE_BYTES))

    def begin(self, name: str) -> None:
        """Begin the section ``name``, which holds the bytes that ``append`` is given until the next
        section begins."""
        self._pad()
        self._sections[name] = {"offset": self._position, "dtype": "|u1", "shape": [0]}
        self._open = name

    def append(self, data: bytes | memoryview) -> int:
        """Add ``data`` to the section that ``begin`` has opened; return its offset in bytes from
        the section's beginning. Raises ValueError where ``begin`` was not called, or ``array`` was
        called after it."""
        if self._open is None:
            raise ValueError("no section is open; call begin() first")
        section = self._sections[self._open]
        offset = int(section["shape"][0])
        section["shape"][0] += len(data)
        self._write(data)
        return offset

    def array(self, name: str, array: AnyArray) -> None:
        """Write a section ``name`` that holds the values of ``array``, its dtype and its shape, so
        that ``Container.array`` of that name returns them. It ends the section that is open.

        ``array`` is uint8, int32 or int64 of any shape; ValueError is raised for another dtype.
        """
        kept = np.ascontiguousarray(array)
        kept = kept.astype(kept.dtype.newbyteorder("<"), copy=False)
        if kept.dtype.str not in _DTYPES:
            raise ValueError(f"dtype is {kept.dtype}; allowed are uint8, int32 and int64")
        self.begin(name)
        self._open = None
        self._sections[name] |= {"dtype": kept.dtype.str, "shape": list(kept.shape)}
        self._write(kept.tobytes())

    def finish(self, part: str, key: str, facts: dict[str, Any]) -> None:
        """Write the header, and then the first bytes of the file, which make it valid. To be called
        once, after all sections.

        ``part`` and ``key`` are texts that say what the file holds, and have to be given again to
        open it; ``facts`` are numbers and texts by name for its reader, ``Container.facts``.
        """
        self._pad()
        content = {"part": part, "key": key, "facts": facts, "sections": self._sections}
        header = json.dumps(content, separators=(",", ":")).encode()
        offset = self._position
        self._write(header)
        self._stream.seek(0)
        self._stream.write(
            _PRELUDE.pack(
                _MAGIC, FORMAT_VERSION, zlib.crc32(header), offset, len(header), self._position
            )
        )

    def _pad(self) -> None:
        self._write(bytes(-self._position % _PAGE_BYTES))

    def _write(self, data: bytes | memoryview) -> None:
        self._stream.write(data)
        self._position += len(data)


class Container:
    """A container, a file of named sections in which a compiled part is stored, mapped into memory.
    Arrays are read-only views of the mapping and keep it alive; there is nothing to close.
    ``facts`` are the numbers and texts that were stored with it, ``part`` is the part that was
    given.

    Safe to read from several threads.
    """

    __slots__ = ("_map", "_sections", "facts", "part", "path")

    def __init__(self, path: Path, part: str, key: str) -> None:
        """Map the file ``path``. ``part`` and ``key`` have to be those that
        ``ContainerWriter.finish`` was given. Raises ContainerDamagedError where the file is
        missing, empty, damaged or cut off, of another format version, or has another part or key;
        OSError where it cannot be opened, MemoryError where this process has no room to map it.
        Contents of sections are not checked."""
        if not path.is_file():  # opening a pipe would wait for ever
            raise ContainerDamagedError(f"{path.name} is not there, or no file")
        with path.open("rb") as stream:
            try:
                self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file cannot be mapped
                raise ContainerDamagedError(f"{path.name} is empty") from error
            except OSError as error:
                if error.errno == errno.ENOMEM:  # the file is sound
                    raise MemoryError from error
                raise
        self.path = path
        self.part = part
        header = self._header()
        if header.get("part") != part or header.get("key") != key:
            raise ContainerDamagedError(f"{path.name} is the container of something else")
        self.facts: dict[str, Any] = header["facts"]
        self._sections: dict[str, Any] = header["sections"]

    @property
    def size_bytes(self) -> int:
        """Size of the container's file in bytes."""
        return len(self._map)

    def array(self, name: str) -> AnyArray:
        """Return the section ``name`` as it was written: an array of its shape and dtype, uint8 and
        (bytes,) for one of ``append``. Read-only.

        Raises ContainerDamagedError where there is no such section, or it does not lie inside the
        file.
        """
        try:
            section = self._sections[name]
            dtype = np.dtype(_DTYPES[section["dtype"]])
            shape = tuple(int(side) for side in section["shape"])
            offset = int(section["offset"])
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ContainerDamagedError(f"{self.path.name} has no sound section {name}") from error
        count = math.prod(shape)
        if (
            min(shape, default=0) < 0
            or offset % _PAGE_BYTES
            or not _PAGE_BYTES <= offset <= len(self._map)
            or offset + count * dtype.itemsize > len(self._map)
        ):
            raise ContainerDamagedError(f"section {name} of {self.path.name} leaves the file")
        return np.frombuffer(self._map, dtype, count, offset).reshape(shape)

    def _header(self) -> dict[str, Any]:
        mapped = self._map
        if len(mapped) < _PAGE_BYTES:
            raise ContainerDamagedError(f"{self.path.name} has only {len(mapped)} bytes")
        magic, version, crc, offset, length, total = _PRELUDE.unpack_from(mapped)
        if magic != _MAGIC or version != FORMAT_VERSION:
            raise ContainerDamagedError(
                f"{self.path.name} is no container of version {FORMAT_VERSION}"
            )
        if total != len(mapped) or offset + length != total or length > _MAX_HEADER_BYTES:
            raise ContainerDamagedError(f"{self.path.name} has {len(mapped)} bytes and not {total}")
        header = mapped[offset : offset + length]
        if zlib.crc32(header) != crc:
            raise ContainerDamagedError(f"{self.path.name} has a damaged header")
        try:
            content = json.loads(header)
        except (ValueError, RecursionError) as error:
            raise ContainerDamagedError(f"{self.path.name} has a damaged header") from error
        if not isinstance(content, dict) or not all(
            isinstance(content.get(name), dict) for name in ("facts", "sections")
        ):
            raise ContainerDamagedError(f"{self.path.name} has an incomplete header")
        return content
