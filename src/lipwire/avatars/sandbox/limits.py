"""How much a process may use that works on a package of somebody else's."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lipwire.config import usable_cores
from lipwire.config.machine import keep_to_cores

MAX_FILE_BYTES: Final = 16 * 1024**3
"""The most bytes of one file that the process writes. 3,000 frames with patches of 500x500 pixels
are 2.3 GB."""
MAX_OPEN_FILES: Final = 512
MAX_CORES: Final = 4
"""Each thread takes memory, and the others of a machine are for its own work."""
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Variables in which libraries look for how many threads to start when they are loaded."""


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Limits of the process that compiles or validates one package. ``memory_bytes`` is the most
    address space that it may have, and ``cores`` the most processor cores that it may use; both
    hold on Linux alone. ``time_s`` is how many seconds it may take from its start to its answer;
    for as long again it may wait for another process that compiles the same avatar."""

    memory_bytes: int = 4 * 1024**3
    """Of address space, more of which the system refuses. The demo avatar takes less than 1 GiB."""
    time_s: float = 600.0
    """From the start of the process to its answer. For as long again it may wait for another
    process that compiles the same avatar."""
    cores: int = MAX_CORES


def limits_memory() -> bool:
    """Return whether this system refuses a process memory beyond its limit: Linux does. macOS
    accepts the limit and ignores it, and Windows has none for a process."""
    return sys.platform == "linux"


def thread_counts(environ: Mapping[str, str], cores: int) -> dict[str, str]:
    """Return the environment variables, with their values, by which numerical libraries start at
    most ``cores`` threads each: for each the value in ``environ`` where that is a number from 1 to
    ``cores``, else ``cores``."""
    counts = {}
    for name in _THREADS:
        given = environ.get(name, "")
        counts[name] = given if given.isdecimal() and 1 <= int(given) <= cores else str(cores)
    return counts


def confine(limits: SandboxLimits) -> None:
    """Limit this process, until it ends, to what ``limits`` allows: its address space and its cores
    (on Linux), and its processor time, ``time_s`` seconds for each core. Besides, a file that it
    writes may have at most 16 GiB, it may have at most 512 files open, and it leaves no core files.
    Where the system's own upper (hard) limit is lower, that one is used.

    On Windows there are no such limits, and nothing is set. Raises OSError or ValueError where the
    system refuses them.
    """
    if sys.platform == "win32":
        return
    import resource

    def lower(kind: int, most: int) -> None:
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, most))

    if limits_memory():
        lower(resource.RLIMIT_AS, limits.memory_bytes)
    keep_to_cores(limits.cores)
    # Each core may be busy the whole time.
    lower(resource.RLIMIT_CPU, math.ceil(limits.time_s) * usable_cores() + 1)
    lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    lower(resource.RLIMIT_CORE, 0)
