"""The files of renders in their folder: recordings that wait, what is being made, and finished
videos under the hash of their content.

::

    renders.sqlite3       what is to be done, and what was
    inputs/ID.wav         the recording of a job
    work/OWNER/           what one process is making
    owners/OWNER.lock     locked by that process for as long as it lives
    videos/ab/abcd….mp4   finished: the name is the SHA-256 of the content
"""

import contextlib
import hashlib
import os
import secrets
import shutil
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from lipwire.domain import StorageFailed
from lipwire.domain.closing import Closing
from lipwire.domain.newfiles import flush, new_path, publish, remove, storage_errors

_PRIVATE: Final = 0o700
_PIECE_BYTES: Final = 1 << 20
_TRIES: Final = 5
_OWN_LONGEST_S: Final = 3600.0
"""How old a file is that nobody knows before it is removed: longer than it takes to write one."""


class RenderFiles(Closing):
    """The folder of a server's renders, which its processes share, and the part of it that this
    process alone uses. A context manager. Methods may be called from any number of threads. The
    names of recordings are job ids; the names of videos are the SHA-256 of their content in
    hexadecimal digits and a ``suffix``, ".mp4" or ".m4s"."""

    def __init__(self, folder: Path) -> None:
        """``folder`` is made where it is not there; nobody but this user can read it then. Raises
        StorageFailed where it cannot be written to."""
        self.folder: Final = folder
        self.database: Final = folder / "renders.sqlite3"
        self._owners = folder / "owners"
        self._inputs = folder / "inputs"
        self._videos = folder / "videos"
        with _storage_errors():
            folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE)
            for inner in (self._owners, self._inputs, self._videos, folder / "work"):
                inner.mkdir(exist_ok=True, mode=_PRIVATE)
            self._lock = self._own_lock()
            self._work = folder / "work" / self.owner
            self._work.mkdir(mode=_PRIVATE)

    @property
    def owner(self) -> str:
        """The name of this process among those that share the folder: 16 hexadecimal digits, new at
        each start of a process."""
        return Path(self._lock.lock_file).stem

    def close(self) -> None:
        """Remove the files that this process was making, and let the other processes see that it
        has ended. Closing twice is allowed."""
        remove(self._work)
        self._lock.release()
        remove(self._owners / f"{self.owner}.lock")

    def has_ended(self, owner: str) -> bool:
        """Return whether the process ``owner``, one of ``other_owners``, has ended; False for this
        process. Where it has ended, the files that it was making are removed, and ``other_owners``
        no longer contains it."""
        if owner == self.owner:
            return False
        lock = self._lock_of(owner)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            return False
        remove(self.folder / "work" / owner)
        lock.release()
        remove(self._owners / f"{owner}.lock")
        return True

    def write_input(self, job_id: str, pcm: npt.NDArray[np.int16], rate_hz: int) -> int:
        """Write ``pcm``, the recording of the job ``job_id``, (n, channels) int16 at ``rate_hz``,
        as a WAV file, and return the file's size in bytes. Raises StorageFailed where there is no
        room for it."""
        target = self.input(job_id)
        with _storage_errors(), new_path(target) as temporary:
            with wave.open(str(temporary), "wb") as file:
                file.setnchannels(pcm.shape[1])
                file.setsampwidth(2)
                file.setframerate(rate_hz)
                file.writeframes(pcm.astype("<i2", copy=False).tobytes())
            size = temporary.stat().st_size
        return size

    def input(self, job_id: str) -> Path:
        """Return the path of the recording of the job ``job_id``. Whether there is a file is not
        looked at."""
        return self._inputs / f"{job_id}.wav"

    def forget_input(self, job_id: str) -> None:
        """Remove the recording of the job ``job_id``, if it is there. Raises nothing."""
        remove(self.input(job_id))

    def new_file(self, suffix: str) -> Path:
        """Return the path for a new file in this process's own folder; its name is unique and ends
        in ``suffix``. The file is not created. Files that are left in that folder are removed when
        this process ends."""
        return self._work / f"{secrets.token_hex(8)}{suffix}"

    def video(self, sha256: str, suffix: str) -> Path:
        """Return the path of the video with the hash ``sha256`` whose name ends in ``suffix``.
        Whether there is a file is not looked at."""
        return self._videos / sha256[:2] / f"{sha256}{suffix}"

    def keep(self, made: Path, sha256: str, suffix: str) -> None:
        """Move the video file ``made``, whose content has the hash ``sha256``, to the path that
        ``video(sha256, suffix)`` returns, in this folder; it is safely on the disk when this
        returns. Where a file of the same length is there already, nothing is done, and ``made``
        stays. Raises StorageFailed where the file cannot be moved."""
        target = self.video(sha256, suffix)
        with _storage_errors():
            if target.is_file() and target.stat().st_size == made.stat().st_size:
                return
            target.parent.mkdir(exist_ok=True, mode=_PRIVATE)
            flush(made)
            publish(made, target)
            flush_names(target.parent)

    def remove_video(self, sha256: str, suffix: str) -> None:
        """Remove the video with the hash ``sha256`` and the suffix ``suffix``, if it is there.
        Raises nothing."""
        remove(self.video(sha256, suffix))

    def remove_unknown(self, jobs: set[str], videos: set[str]) -> None:
        """Remove recordings whose job ids are not in ``jobs``, videos whose SHA-256 hashes are not
        in ``videos``, and folders of processes that have ended: a process that was killed between
        two steps leaves such files. Recordings of the last hour stay, because their jobs may be
        about to be added. No thread of any process may add a job or a video meanwhile: the caller
        passes this method to ``JobList.among``, which calls it with these sets and prevents
        that."""
        before_s = time.time() - _OWN_LONGEST_S
        for path in self._inputs.iterdir():
            with contextlib.suppress(OSError):
                if path.stem not in jobs and path.stat().st_mtime < before_s:
                    remove(path)
        for path in self._videos.glob("*/*"):
            if path.stem not in videos:
                remove(path)
        for path in (self.folder / "work").iterdir():
            if not (self._owners / f"{path.name}.lock").exists():
                shutil.rmtree(path, ignore_errors=True)

    def other_owners(self) -> list[str]:
        """Return the names (``owner``) of the other processes that share the folder, sorted;
        processes that were killed are among them until ``has_ended`` has found that out."""
        names = {path.stem for path in self._owners.glob("*.lock")}
        return sorted(names - {self.owner})

    def _own_lock(self) -> FileLock:
        """A lock of this process. Raises OSError where there can be none."""
        for _ in range(_TRIES):
            lock = self._lock_of(secrets.token_hex(8))
            with contextlib.suppress(Timeout):  # another one has looked whether this one has ended
                lock.acquire(blocking=False)
                return lock
        raise OSError(f"no lock in {_TRIES} tries")

    def _lock_of(self, owner: str) -> FileLock:
        # Other threads may release it than the one that has acquired it.
        return FileLock(self._owners / f"{owner}.lock", thread_local=False)


def hash_of(path: Path) -> str:
    """Return the SHA-256 of the content of the file ``path`` in hexadecimal digits. Raises
    StorageFailed where it cannot be read."""
    with storage_errors(path), path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def flush_names(folder: Path) -> None:
    """Wait until the names of the files in ``folder`` are on the disk, so that a power cut loses
    none of them. Does nothing where the file system cannot do that. Raises nothing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    """Where the block raises an OSError, raise StorageFailed, which clients are told: it names no
    path."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageFailed(f"renders cannot be written to the disk: {reason}") from error
