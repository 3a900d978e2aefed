"""How much memory there is to use."""

import os
from pathlib import Path
from typing import Final

__all__ = ["usable_memory_bytes"]

_CGROUPS: Final = Path("/sys/fs/cgroup")
_LIMITS: Final = ("memory.max", "memory/memory.limit_in_bytes")
"""Of control groups, versions 2 and 1; "max" or a number of bytes, in version 1 a huge one where
there is none. https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files"""
_UNKNOWN_BYTES: Final = 4 * 1024**3
"""Assumed where the system does not say."""


def usable_memory_bytes(cgroups: Path = _CGROUPS) -> int:
    """Return how many bytes of memory this process may have: what the machine has, or less where a
    control group limits its container. Returns 4 GiB where the system does not say. ``cgroups`` is
    the folder in which the control groups' file system is mounted."""
    limits = [_physical_bytes()]
    for name in _LIMITS:
        try:
            limits.append(int((cgroups / name).read_text()))
        except (OSError, ValueError):
            continue  # no limit, or no such interface
    return min(limits)


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return _UNKNOWN_BYTES
