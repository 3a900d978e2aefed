"""Specialised networks on the disk, with the verdicts of their trials.

    FOLDER / SHA-256 of the network's source / key .json   the verdict
                                             / key .blob   the network, where it is to be used

The key stands for OpenVINO's version, the processor, the number of lanes and what the network was
tried with. All of it can be made again, and networks that were not used for longest go where there
is more than a bound.
"""

import functools
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

from filelock import FileLock, Timeout

from lipwire.config.folders import cache_folders
from lipwire.domain import AudioWindows, Crops, StorageFailed
from lipwire.domain.newfiles import TEMPORARY, temporary_name, write_file
from lipwire.engine.special.openvino import OpenVinoFailed, openvino_key
from lipwire.engine.special.specialtrial import Verdict, try_apart

DISK_BYTES: Final = 4 << 30
"""The most that all specialised networks take on the disk."""

TriedWith = Literal["frames", "sentence"]
"""Frames that somebody asked for, or the sentence that comes with Lipwire."""

_FORMAT: Final = 1
"""Raised whenever what is compiled, or how it is tried, changes."""
_LOOK_S: Final = 0.2
_LONGEST_S: Final = 3600.0
"""Files that are older and unfinished are nobody's any more."""


def special_folder() -> Path:
    """Return the folder for specialised networks in the user's cache folder; it need not exist. In
    it each network has a folder, named by the SHA-256 of its ONNX file."""
    return cache_folders()[-1] / "specialised"


def folders_made_of(package: Path) -> Iterator[Path]:
    """Yield those folders in ``special_folder`` whose network was made from an ONNX file in the
    folder ``package``, even if the package has another network by now. A folder may be yielded more
    than once."""
    for verdicts in special_folder().glob("*/*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            if Path(json.loads(verdicts.read_bytes())["source"]).is_relative_to(package):
                yield verdicts.parent


class SpecialStore:
    """Specialises networks: compiles them with OpenVINO for this machine's processor, tries each
    against ONNX Runtime (is it faster, are the pictures the same?), and keeps the compiled network
    and the result of the trial, its ``Verdict``, on the disk. Thread-safe; several processes may
    use one folder."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        tried_with: TriedWith = "frames",
        disk_bytes: int = DISK_BYTES,
    ) -> None:
        """The networks lie in ``folder``; None for ``special_folder``. ``tried_with`` says what the
        caller passes to ``make`` for trials: "frames" that somebody asked for, or those of the
        "sentence" that comes with Lipwire. Only verdicts and networks from trials of this kind are
        found. All networks in the folder together take at most ``disk_bytes``."""
        self._folder = folder
        self._tried_with = tried_with
        self._disk_bytes = disk_bytes

    def verdict(self, source_sha256: str, lanes: int) -> Verdict | None:
        """Return the verdict of the trial of the network whose ONNX file has the SHA-256
        ``source_sha256``, in hexadecimal digits, specialised for ``lanes`` frames at a time; None
        where none is kept for this processor and this version of OpenVINO. Raises OpenVinoFailed
        where ``source_sha256`` is no SHA-256."""
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
            return Verdict(**_said(self._paths(source_sha256, lanes)[0])["verdict"])
        return None

    def network(self, source_sha256: str, lanes: int) -> bytes | None:
        """Return the bytes of the specialised form of the network whose ONNX file has the SHA-256
        ``source_sha256``, in hexadecimal digits, for ``lanes`` frames at a time (1 or more);
        ``SpecialisedNetwork`` runs it. To be called where ``verdict`` with the same arguments
        returned one with an empty ``reason``: the trial went well. Returns None where the network
        is not there or damaged; then its verdict is removed, so that ``make`` makes both again.
        Raises OpenVinoFailed where ``source_sha256`` is no SHA-256."""
        verdicts, blob = self._paths(source_sha256, lanes)
        try:
            data = blob.read_bytes()
            if hashlib.sha256(data).hexdigest() == _said(verdicts)["sha256"]:
                with suppress(OSError):  # it is used now; the file may be another user's
                    os.utime(blob)
                return data
        except (OSError, ValueError, TypeError, KeyError):
            pass
        with suppress(OSError):
            verdicts.unlink()
        return None

    def make(
        self,
        source: Path,
        source_sha256: str,
        crops: Crops,
        windows: AudioWindows,
        lanes: int,
        cancelled: threading.Event | None = None,
    ) -> Verdict:
        """Specialise the network in the ONNX file ``source`` for ``lanes`` frames at a time, in a
        process of its own, try it, keep the network and the verdict on the disk, and return the
        verdict.

        ``source_sha256`` is the SHA-256 that the source has to have, in hexadecimal digits.
        ``crops``, (N, 320, 320, 3) uint8, and ``windows``, (N, 32, 16, 16) float32, are the frames
        that it is tried with. Takes seconds; where ``cancelled`` is set meanwhile it ends early,
        and the verdict's ``reason`` says so. Where a verdict is kept already, or another process is
        making it, which is waited for, returns that verdict. Networks that were not used for
        longest are removed where all together would take more of the disk than allowed. Raises
        StorageFailed where nothing can be written, OpenVinoFailed where ``source_sha256`` is no
        SHA-256.
        """
        verdicts, blob = self._paths(source_sha256, lanes)
        made = temporary_name(blob.parent, ".blob")
        try:
            blob.parent.mkdir(parents=True, exist_ok=True)
            with _held(FileLock(blob.with_suffix(".lock")), cancelled):
                if (kept := self.verdict(source_sha256, lanes)) is not None:
                    return kept
                verdict = try_apart(source, source_sha256, crops, windows, lanes, made, cancelled)
                data = b"" if verdict.reason else made.read_bytes()
                if data:
                    self._make_room(len(data))
                    made.replace(blob)
                if verdict.lasting:
                    said = {
                        "verdict": asdict(verdict),
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "source": str(source.absolute()),
                    }
                    write_file(verdicts, json.dumps(said).encode())
                if not source.exists():  # its avatar was erased meanwhile
                    verdicts.unlink(missing_ok=True)
                    blob.unlink(missing_ok=True)
                return verdict
        except Timeout:
            return Verdict("its trial was cancelled", lasting=False)
        except OSError as error:
            raise StorageFailed(f"{error.filename or blob}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                made.unlink(missing_ok=True)

    def _paths(self, source_sha256: str, lanes: int) -> tuple[Path, Path]:
        if not re.fullmatch("[0-9a-f]{64}", source_sha256):
            raise OpenVinoFailed(f"the SHA-256 of its source is {source_sha256[:80]!r}")
        name = _key(self._tried_with, lanes)
        folder = (self._folder or special_folder()) / source_sha256
        return folder / f"{name}.json", folder / f"{name}.blob"

    def _make_room(self, size_bytes: int) -> None:
        """Remove what was not used for longest until there is room for so much, and what a process
        that died has left unfinished."""
        blobs = []
        for path in (self._folder or special_folder()).glob("*/*.blob"):
            with suppress(OSError):  # another process removes, too
                found = path.stat()
                if TEMPORARY not in path.name:
                    blobs.append((found.st_mtime_ns, found.st_size, path))
                elif found.st_mtime < time.time() - _LONGEST_S:
                    path.unlink()
        total = size_bytes + sum(size for _, size, _ in blobs)
        for _, size, path in sorted(blobs):
            if total <= self._disk_bytes:
                break
            with suppress(OSError):
                path.unlink()
                total -= size


@contextmanager
def _held(lock: FileLock, cancelled: threading.Event | None) -> Iterator[None]:
    """Hold ``lock`` for the block. Raises Timeout where ``cancelled`` is set while another process
    has it."""
    while True:
        try:
            lock.acquire(timeout=_LOOK_S)
            break
        except Timeout:
            if cancelled is not None and cancelled.is_set():
                raise
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _key(tried_with: TriedWith, lanes: int) -> str:
    text = f"{_FORMAT}|{openvino_key()}|{lanes}|{tried_with}"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _said(verdicts: Path) -> dict[str, Any]:
    said = json.loads(verdicts.read_bytes())
    if not isinstance(said, dict):
        raise TypeError("no verdict")
    return said
