"""Archives with avatars, unpacked with care: ZIP files, and TAR files plain or compressed.

An archive may come from anybody. One that would write outside its folder, that holds links or
devices, or that unpacks to very much is refused as a whole. Memory and time have limits, whatever
an archive says of itself.
ZIP: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. TAR: POSIX.1-2017, pax.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Final

from lipwire.avatars.importing.unpacking.tarfiles import Readable, decompressed, tar_entries
from lipwire.avatars.importing.unpacking.zipfiles import TooManyEntriesError, opened_zip
from lipwire.domain import AvatarInvalid, NotFound
from lipwire.domain.newfiles import storage_errors
from lipwire.domain.wording import one_line, shown

SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_ENTRIES: Final = 200_000
"""An hour of frames with their landmarks."""
MAX_BYTES: Final = 64 * 1024**3
MAX_RATIO: Final = 200
"""Of what is unpacked to the archive: frames hardly shrink, texts of landmarks to a fifth."""
_FREE_BYTES: Final = 64 * 1024**2
"""So much may be unpacked from an archive of any size."""
_PIECE_BYTES: Final = 1 << 20
_MAX_NAME_BYTES: Final = 1024
_MAX_PART_BYTES: Final = 255
"""Of one folder's or file's name, as file systems have it."""
_ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Python unpacks others without a limit of memory."""
_MAX_REASON: Final = 200
_DAMAGED: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    UnicodeDecodeError,
    ValueError,
)
"""What the libraries raise for archives that are cut off, damaged, or of a kind that they do not
read."""


def is_archive(path: Path) -> bool:
    """Return whether the name of the file ``path`` ends like that of an archive that can be read,
    such as ".zip" or ".tar.gz". The file is not read."""
    return path.name.lower().endswith(SUFFIXES)


def stem_of(path: Path) -> str:
    """Return the name of the archive ``path`` without the ending of its kind: "anna" for
    "anna.tar.gz"; the whole name where it has none."""
    return next((path.name[: -len(end)] for end in SUFFIXES[::-1] if _ends(path, end)), path.name)


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Context manager: unpack ``archive`` into a new folder below the one for temporary files, and
    yield the new folder's path; the folder is removed at the end of the block.

    Raises NotFound where the archive is not there, StorageFailed where there is no room, and
    AvatarInvalid where it is damaged, neither ZIP nor a tar file, or encrypted, where a path in it
    leads out of the folder, and where it holds links, devices, or too many or too large files.
    """
    if not archive.is_file():
        raise NotFound(f"no archive {archive}; there is no such file")
    with TemporaryDirectory(prefix="lipwire-import-") as made:
        folder = Path(made)
        budget = _Budget(archive)
        with storage_errors(folder):
            try:
                if archive.name.lower().endswith(".zip"):
                    _unpack_zip(archive, folder, budget)
                else:
                    _unpack_tar(archive, folder, budget)
            except TooManyEntriesError:
                raise budget.overfull() from None
            except (*_DAMAGED, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the disk; bz2 and gzip raise OSErrors of their own
                reason = one_line(str(error), _MAX_REASON) or type(error).__name__
                raise AvatarInvalid(f"{archive.name} cannot be unpacked: {reason}") from error
        yield folder


class _Budget:
    """How much may still be unpacked: files and folders, and bytes."""

    def __init__(self, archive: Path) -> None:
        self._name = archive.name
        size_bytes = archive.stat().st_size
        self._limit_bytes = min(MAX_BYTES, size_bytes * MAX_RATIO + _FREE_BYTES)
        self._bytes = self._limit_bytes
        self._entries = MAX_ENTRIES

    def entry(self, name: str) -> str:
        """Count an entry and return its path, relative, with forward slashes; empty for one that is
        left out. Raises AvatarInvalid for a name that leads out."""
        self.count()
        path = PurePosixPath(name.replace("\\", "/"))
        windows = PureWindowsPath(name)
        if path.is_absolute() or windows.drive or windows.root or ".." in path.parts:
            raise self.refused(name, "leads out of the folder")
        if not name.isprintable() or _too_long(path):
            raise self.refused(name, "is no file name")
        if not path.parts or path.parts[0] == "__MACOSX":
            return ""
        return path.as_posix()

    def refused(self, name: str, why: str) -> AvatarInvalid:
        return AvatarInvalid(f"{self._name}: {shown(name)} {why}; nothing of it is taken")

    def count(self) -> None:
        """Count an entry. Raises AvatarInvalid where there are too many."""
        self._entries -= 1
        if self._entries < 0:
            raise self.overfull()

    def overfull(self) -> AvatarInvalid:
        return AvatarInvalid(f"{self._name} holds more than {MAX_ENTRIES} files and folders")

    def spend(self, size_bytes: int) -> None:
        """Count bytes as they come: what an archive says need not be so. Raises AvatarInvalid where
        there are too many."""
        self._bytes -= size_bytes
        if self._bytes < 0:
            raise AvatarInvalid(
                f"{self._name} unpacks to more than {self._limit_bytes} bytes; at most"
                f" {MAX_RATIO} times its size is allowed, and {MAX_BYTES} bytes"
            )


class _Counted:
    """``source``, of which each byte is counted."""

    def __init__(self, source: Readable, budget: _Budget) -> None:
        self._source = source
        self._budget = budget

    def read(self, size: int, /) -> bytes:
        data = self._source.read(size)
        self._budget.spend(len(data))
        return data


def _unpack_zip(archive: Path, folder: Path, budget: _Budget) -> None:
    with opened_zip(archive, MAX_ENTRIES) as opened:
        for info in opened.infolist():
            name = budget.entry(info.filename)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise budget.refused(info.filename, "is a link or no file")
            if info.flag_bits & 1:
                raise budget.refused(info.filename, "has a password")
            if not name or info.is_dir() or info.filename.endswith("\\"):  # as Windows had it
                continue
            if info.compress_type not in _ZIP_METHODS:
                raise budget.refused(
                    info.filename,
                    f"is packed by method {info.compress_type}; read are 0 and 8 (deflated)",
                )
            target = _new(folder, name, info.filename, budget)
            with opened.open(info) as source:
                _copy(_Counted(source, budget), target)


def _unpack_tar(archive: Path, folder: Path, budget: _Budget) -> None:
    with decompressed(archive) as stream:
        for entry, content in tar_entries(_Counted(stream, budget)):
            name = budget.entry(entry.name)
            if entry.kind == "other":
                raise budget.refused(entry.name, "is a link or no file")
            if name and entry.kind == "file":
                _copy(content, _new(folder, name, entry.name, budget))


def _copy(source: Readable, target: Path) -> None:
    with target.open("xb") as stream:
        while piece := source.read(_PIECE_BYTES):
            stream.write(piece)


def _new(folder: Path, name: str, written: str, budget: _Budget) -> Path:
    """The path of a file, whose folder is made; each new one is counted."""
    target = folder / name
    missing = []
    for above in target.parents:
        if above.is_dir():
            break
        missing.append(above)
        budget.count()
    if target.exists() or any(above.exists() for above in missing):
        raise budget.refused(written, "is there twice")
    for above in reversed(missing):
        above.mkdir()
    return target


def _too_long(path: PurePosixPath) -> bool:
    sizes = [len(part.encode()) for part in path.parts]
    return sum(sizes) + len(sizes) > _MAX_NAME_BYTES or max(sizes, default=0) > _MAX_PART_BYTES


def _ends(path: Path, suffix: str) -> bool:
    return path.name.lower().endswith(suffix)
