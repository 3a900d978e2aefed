"""Files that are whole or not there, whatever stops the program."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lipwire.domain import StorageFailed


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` under another name first. Raises `StorageFailed`.

    The other name begins with a dot and carries the process, so that two runs do not meet.
    """
    partial = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as JSON. Raises `StorageFailed`."""
    write_whole(path, json.dumps(value, ensure_ascii=False).encode())


def write_npy(path: Path, values: npt.NDArray[Any]) -> None:
    """Write ``values`` to ``path`` in numpy's format. Raises `StorageFailed`."""
    packed = io.BytesIO()
    np.save(packed, values, allow_pickle=False)
    write_whole(path, packed.getvalue())


def make_folder(path: Path) -> None:
    """Make ``path`` and its parents where they are missing. Raises `StorageFailed`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot make the folder {path}: {error.strerror}") from error
