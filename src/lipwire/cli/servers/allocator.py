"""What a server's process asks of the C library's allocator."""

import ctypes
import os
from typing import Final

_M_ARENA_MAX: Final = -8  # malloc.h
_ARENAS: Final = 2


def keep_few_arenas() -> None:
    """Have threads share two of glibc's arenas, where that is the C library. Call it before there
    are threads.

    It gives every thread one, up to eight a core, and an arena keeps the largest that ever was in
    it: servers whose threads take turns with batches of 60 MB came to twice the memory they had use
    for. ``MALLOC_ARENA_MAX`` in the environment has its way.
    """
    if "MALLOC_ARENA_MAX" in os.environ or os.name != "posix":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_ARENA_MAX, _ARENAS)
