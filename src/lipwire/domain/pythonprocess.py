"""How another Python process is started."""

import sys
from pathlib import Path

__all__ = ["program_beside", "python_command"]


def python_command(*arguments: str) -> list[str]:
    """Return the command line that runs this process's Python with ``arguments``, such as ``"-m"``
    and a module's name.

    That process does not look for modules in the current folder (``-P``). With ``-m`` and ``-c``
    Python would look there first, and import a file ``numpy.py`` in the current folder in place of
    NumPy.
    """
    return [sys.executable, "-P", *arguments]


def program_beside(name: str) -> Path:
    """Return the path at which the program ``name`` lies if it is installed with this process's
    Python, for example in a virtual environment. Whether there is such a file is not looked at."""
    return Path(sys.executable).absolute().parent / name
