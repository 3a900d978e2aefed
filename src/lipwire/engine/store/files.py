"""What the files of a compiled model are written and read with.

A file of weights holds arrays one after another, little endian, each at a multiple of 64 bytes (a
cache line, and the widest vector there is); equal arrays are there once.
"""

import errno
import hashlib
import mmap
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AvatarInvalid, CompiledFormGone

ALIGNMENT_BYTES: Final = 64
ELEMENT_TYPES: Final = ("float16", "float32", "float64")
MAX_MANIFEST_BYTES: Final = 1 << 24
MAX_GRAPH_BYTES: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """Where one weight lies in a file of weights: its ``name`` in the graph, the ``element_type``
    and ``shape`` of the array, and its offset in the file in bytes."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    offset_bytes: int


class WeightsFile:
    """Writes a file of weights: arrays one behind the other, equal ones only once. ``file`` is open
    for writing, and stays the caller's to close."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._placed: dict[bytes, int] = {}
        self.size_bytes = 0

    def place(self, values: npt.NDArray[np.generic]) -> int:
        """Write the array ``values`` at the end of the file, unless an equal one is there already,
        and return its offset in the file in bytes.

        Raises OSError where they cannot be written.
        """
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
    """Return the numbers in ``values``, an array of any shape, as they are stored: one behind the
    other in C order, little endian."""
    values = np.ascontiguousarray(values)
    if sys.byteorder == "big":
        values = values.astype(values.dtype.newbyteorder("<"))
    return values.tobytes()


def write_graph(path: Path, graph: bytes) -> str:
    """Write ``graph``, the bytes of an ONNX model, to the file ``path``; return its SHA-256 in
    hexadecimal digits. Raises OSError where it cannot be written."""
    path.write_bytes(graph)
    return hashlib.sha256(graph).hexdigest()


def read_graph_file(folder: Path, file: str, sha256: str, manifest: str) -> bytes:
    """Return the bytes of a graph's file, which is called ``file`` in ``folder``.

    ``sha256`` is the SHA-256 that the file has to have, in hexadecimal digits, and ``manifest`` the
    name of the file which says that, for messages. Raises CompiledFormGone, an AvatarInvalid, where
    it is missing, AvatarInvalid where it cannot be read or has another SHA-256.
    """
    try:
        data = read_limited(folder / file, MAX_GRAPH_BYTES)
    except FileNotFoundError:
        raise CompiledFormGone(f"compiled model: {file} is missing") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise AvatarInvalid(f"compiled model: {file} is not what {manifest} says it is")
    return data


def map_file(folder: Path, file: str, size_bytes: int, manifest: str) -> npt.NDArray[np.uint8]:
    """Return the file of weights that is called ``file`` in ``folder``, mapped into memory:
    (size_bytes,) uint8, read-only.

    Nothing is copied; the system is asked to read in advance what its page cache does not contain.
    ``manifest`` is the name of the file that says how long the weights are, for messages. Raises
    CompiledFormGone, an AvatarInvalid, where the file is missing, AvatarInvalid where it cannot be
    read or is not ``size_bytes`` long, and MemoryError where this process has no room to map it.
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
        raise CompiledFormGone(f"compiled model: {file} is missing") from None
    except OSError as error:
        if error.errno == errno.ENOMEM:  # the file is sound
            raise MemoryError from error
        raise AvatarInvalid(f"compiled model: {file} cannot be read: {error.strerror}") from None


def read_limited(path: Path, limit_bytes: int) -> bytes:
    """Return all bytes of the file at ``path``. Raises FileNotFoundError where there is none,
    AvatarInvalid where it has more than ``limit_bytes`` bytes or cannot be read."""
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
    """Return ``value`` if it is a whole number from 0 to ``most``, else raise ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a whole number from 0 to {most}")
    return value
