"""Files of JSON and of numpy, whole or not there, and folders for them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lipwire.domain import StorageFailed
from lipwire.domain.newfiles import write_file


def write_json(path: Path, value: object) -> None:
    """Write ``value`` to ``path`` as JSON. Raises `StorageFailed`."""
    write_file(path, json.dumps(value, ensure_ascii=False).encode())


def write_npy(path: Path, values: npt.NDArray[Any]) -> None:
    """Write ``values`` to ``path`` in numpy's format. Raises `StorageFailed`."""
    packed = io.BytesIO()
    np.save(packed, values, allow_pickle=False)
    write_file(path, packed.getvalue())


def make_folder(path: Path) -> None:
    """Make ``path`` and its parents where they are missing. Raises `StorageFailed`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageFailed(f"cannot make the folder {path}: {error.strerror}") from error
