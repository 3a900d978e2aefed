"""What takes long to make and nobody changes, made once for the whole run."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that ``make`` has filled, in whichever process came first; nobody else writes to it.

    ``name`` stands for what is in it: whoever gives the same name gets the same folder.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # that of the run; each worker has a folder of its own in it
    folder, done = root / f"once-{name}", root / f"once-{name}.done"
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # one that failed half-way
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
