"""How many files and connections a server's process may have open."""

from contextlib import suppress
from typing import Final

_MOST: Final = 1 << 20
"""What Linux allows a process unless it is told otherwise (fs.nr_open)."""


def file_limit() -> int | None:
    """Return how many files a server started by this process may have open, connections among them:
    what the system lets it raise its limit to (``ulimit -Hn``), 1,048,576 at most. None where the
    system has no such limits."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)


def raise_file_limit() -> None:
    """Raise the limit of open files of this process, and of those that it starts, to
    ``file_limit``, where it is lower; nothing where the system does not let it. Shells allow 1,024,
    which some hundred avatars take, or clients that connect and say nothing."""
    limit = file_limit()
    if limit is None:
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(OSError, ValueError):  # macOS has a lower one besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
