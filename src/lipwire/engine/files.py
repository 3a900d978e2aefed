"""What the files of a compiled model are written and read with.

A file of weights holds arrays one after another, little endian, each at a multiple of 64 bytes (a
cache line, and the widest vector there is); equal arrays are there once.
"""

import hashlib
import mmap
import os
import sys
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AvatarInvalid

ALIGNMENT_BYTES: Final = 64
ELEMENT_TYPES: Final = ("float16", "float32", "float64")
MAX_MANIFEST_BYTES: Final = 1 << 24
MAX_GRAPH_BYTES: Final = 1 << 31


class WeightsFile:
    """A file of weights while it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._placed: dict[bytes, int] = {}
        self.size_bytes = 0

    def find(self, values: npt.NDArray[np.generic]) -> int | None:
        """The offset at which the bytes of ``values`` lie; None where they do not."""
        return self._placed.get(hashlib.sha256(bytes_of(values)).digest())

    def place(self, values: npt.NDArray[np.generic]) -> int:
        """The offset of ``values``, written now if they are not there yet. Raises OSError."""
        data = bytes_of(values)
        digest = hashlib.sha256(data).digest()
        if digest not in self._placed:
            self._placed[digest] = self.size_bytes
            self._file.write(data)
            padding = -len(data) % ALIGNMENT_BYTES
            self._file.write(bytes(padding))
            self.size_bytes += len(data) + padding
        return self._placed[digest]


def bytes_of(values: npt.NDArray[np.generic]) -> bytes:
    """As they are stored."""
    values = np.ascontiguousarray(values)
    if sys.byteorder == "big":
        values = values.astype(values.dtype.newbyteorder("<"))
    return values.tobytes()


def write_graph(path: Path, graph: bytes) -> str:
    """Write a graph's file; returns its SHA-256. Raises OSError."""
    path.write_bytes(graph)
    return hashlib.sha256(graph).hexdigest()


def read_graph_file(folder: Path, file: str, sha256: str, manifest: str) -> bytes:
    """The bytes of a graph, checked against what ``manifest`` says. Raises AvatarInvalid."""
    try:
        data = read_limited(folder / file, MAX_GRAPH_BYTES)
    except FileNotFoundError:
        raise AvatarInvalid(f"compiled model: {file} is missing") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise AvatarInvalid(f"compiled model: {file} is not what {manifest} says it is")
    return data


def map_file(folder: Path, file: str, size_bytes: int, manifest: str) -> npt.NDArray[np.uint8]:
    """A file of weights, mapped and read-only; an empty array where it is empty.

    Nothing is copied; the system is asked to read ahead what its page cache does not hold. Raises
    AvatarInvalid, also where it has not the size that ``manifest`` says.
    """
    try:
        with (folder / file).open("rb") as opened:
            seen_bytes = os.fstat(opened.fileno()).st_size
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if seen_bytes else None
        if seen_bytes != size_bytes:
            raise AvatarInvalid(
                f"compiled model: {file} has {seen_bytes} bytes, {manifest} says {size_bytes}"
            )
        if mapped is None:
            return np.empty(0, np.uint8)
        if hasattr(mmap, "MADV_WILLNEED"):
            mapped.madvise(mmap.MADV_WILLNEED)
        return np.frombuffer(mapped, np.uint8)
    except FileNotFoundError:
        raise AvatarInvalid(f"compiled model: {file} is missing") from None
    except OSError as error:
        raise AvatarInvalid(f"compiled model: {file} cannot be read: {error.strerror}") from None


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """All of a file. Raises FileNotFoundError, AvatarInvalid where it is larger or unreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AvatarInvalid(
            f"compiled model: {path.name} cannot be read: {error.strerror}"
        ) from None
    if len(data) > limit_bytes:
        raise AvatarInvalid(
            f"compiled model: {path.name} has more than {limit_bytes} bytes, which is the most"
        )
    return data


def whole(value: object, most: int) -> int:
    """A whole number from 0 to ``most``. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a whole number from 0 to {most}")
    return value
