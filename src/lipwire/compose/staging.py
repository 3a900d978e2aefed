"""Where videos and folders of frames are written before they are finished.

A video that is being written lies beside its target under a temporary name, and takes the target's
name in one step when it is done. Where the target is a symbolic link, this happens where the link
leads, and the link stays. What is neither an ordinary file nor a folder of frames is not replaced.
"""

import os
import re
from pathlib import Path

from lipwire.domain import InvalidInput
from lipwire.domain.newfiles import flush, followed, publish, storage_errors, temporary_name

FRAME_NAME = re.compile(r"frame_\d{6,}\.jpg")
"""What a folder of frames consists of."""


def stage_file(target: Path) -> Path:
    """Make a new empty file under a temporary name beside ``target`` and return its path. The
    caller writes it and gives it to ``publish_file``, or removes it.

    Raises StorageFailed when the folder is missing or may not be written to, InvalidInput when
    ``target`` is a folder or a device.
    """
    with storage_errors(target):
        staged = temporary_name(_replaceable_file(target).parent)
        staged.touch(exist_ok=False)  # never someone else's file
    return staged


def publish_file(staged: Path, target: Path) -> None:
    """Flush the finished file ``staged``, which ``stage_file`` made, to the disk and give it the
    name ``target``; a file of that name is replaced in one step.

    Raises StorageFailed when it cannot be flushed or renamed, InvalidInput when ``target`` has
    become a folder or a device meanwhile; ``staged`` is then still there for the caller to remove.
    """
    with storage_errors(target):
        flush(staged)
        publish(staged, _replaceable_file(target))


def stage_folder(target: Path) -> Path:
    """Make a new empty folder under a temporary name beside ``target`` and return its path. The
    caller fills it and gives it to ``publish_folder``, or removes it.

    The new folder lies inside ``target`` where that is a mount point, because no other folder can
    replace a mount point. Raises StorageFailed when the parent folder is missing or may not be
    written to, InvalidInput when ``target`` exists and is something other than an empty folder or a
    folder of frames, in which all files have names like frame_000000.jpg.
    """
    with storage_errors(target):
        real = followed(target)
        staged = temporary_name(real if os.path.ismount(real) else real.parent)
        _check_replaceable(real, target, staged)
        staged.mkdir()
    return staged


def publish_folder(staged: Path, target: Path) -> None:
    """Give the finished folder ``staged``, which ``stage_folder`` made, the name ``target``. A
    folder of that name is replaced where it is empty or has nothing in it but files with names like
    frame_000000.jpg.

    Where ``target`` is a mount point, the files in it are replaced one by one. Raises
    StorageFailed when it cannot be renamed, InvalidInput when ``target`` has become something else
    meanwhile; ``staged`` is then still there for the caller to remove.
    """
    with storage_errors(target):
        real = followed(target)
        _check_replaceable(real, target, staged)
        if staged.parent == real:
            _move_frames(staged, real)
        else:
            publish(staged, real)


def _replaceable_file(target: Path) -> Path:
    """The file that ``target`` stands for. Raises InvalidInput where it is something else."""
    real = followed(target)
    if real.is_dir():
        raise InvalidInput(f"cannot write {target}: it is a folder, a file's name is needed")
    if real.exists() and not real.is_file():
        raise InvalidInput(f"cannot write {target}: it is a device or a pipe, not a file")
    return real


def _check_replaceable(real: Path, target: Path, staged: Path) -> None:
    """Raises InvalidInput where the folder ``real`` holds anything but frames and ``staged``."""
    if not real.exists():
        return
    if not real.is_dir():
        raise InvalidInput(f"cannot write {target}: it is a file, a folder's name is needed")
    for entry in real.iterdir():
        if not FRAME_NAME.fullmatch(entry.name) and entry != staged:
            raise InvalidInput(
                f"cannot write {target}: it holds {entry.name!r}; "
                "only an empty folder or one of frame_NNNNNN.jpg files is replaced"
            )


def _move_frames(staged: Path, folder: Path) -> None:
    old = {entry.name for entry in folder.iterdir() if entry != staged}
    for frame in sorted(staged.iterdir()):
        frame.replace(folder / frame.name)
        old.discard(frame.name)
    for name in old:
        (folder / name).unlink()
    staged.rmdir()
