"""How many files and connections a server's process may have open."""

from contextlib import suppress
from typing import Final

_MOST: Final = 1 << 20
"""What Linux allows a process unless it is told otherwise (fs.nr_open)."""


def file_limit() -> int | None:
    """Return how many files, connections included, a server started by this process may have open:
    the limit to which the system lets it raise its own (``ulimit -Hn``), 1,048,576 at most. None
    where the system has no such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def raise_file_limit() -> None:
    """Raise the limit of open files to ``file_limit()``, for this process and those that it starts.
    Does nothing where the limit is that high already, or where the system does not allow it. The
    usual 1,024 are reached by some hundred avatars, or by clients that keep connections open."""
    limit = file_limit()
    if limit is None:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):  # macOS has a lower one besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
