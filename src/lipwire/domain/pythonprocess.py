"""How another Python process is started."""

import sys
from pathlib import Path

__all__ = ["program_beside", "python_command"]


def python_command(*arguments: str) -> list[str]:
    """Return the command line that runs this process's Python with ``arguments``, such as ``"-m"``
    and a module's name.

    The current folder is not one of those in which it looks for modules (``-P``): with ``-m`` and
    ``-c`` it would be the first of them, and a file ``numpy.py`` in the folder in which a command
    is run would be run in NumPy's place.
    """
    return [sys.executable, "-P", *arguments]


def program_beside(name: str) -> Path:
    """Return the path that the program called ``name`` has where it is installed with this
    process's Python, as in a virtual environment. Whether there is such a file is not looked at."""
    return Path(sys.executable).absolute().parent / name
