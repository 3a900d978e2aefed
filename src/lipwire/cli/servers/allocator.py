"""What a server's process asks of the C library's allocator."""

import ctypes
import os
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
_ARENAS: Final = 2


def keep_few_arenas() -> None:
    """Limit glibc to two memory arenas for all threads. Does nothing where the C library is another
    one, or the variable ``MALLOC_ARENA_MAX`` is set. Call it before any thread is started.

    By default each thread gets an arena, up to eight for each core, and an arena keeps the most
    memory that was ever in it: servers whose threads take turns with batches of 60 MB held twice
    the memory that they used.
    """
    if "MALLOC_ARENA_MAX" in os.environ or os.name != "posix":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_ARENA_MAX, _ARENAS)
