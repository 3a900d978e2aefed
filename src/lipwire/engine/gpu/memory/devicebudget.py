"""Bytes of a device that several holders share."""

import threading
from typing import Final


class DeviceBudget:
    """How many bytes of a device's memory may be used, by all that share this budget together. It
    only counts. Thread-safe."""

    __slots__ = ("_left_bytes", "_lock", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        """At most ``size_bytes`` may be taken at a time."""
        self.size_bytes: Final = size_bytes
        self._left_bytes = size_bytes
        self._lock = threading.Lock()

    @property
    def taken_bytes(self) -> int:
        """Bytes that are taken now."""
        return self.size_bytes - self._left_bytes

    def take(self, size_bytes: int) -> bool:
        """Count ``size_bytes`` as taken, and return True; the caller passes them to ``give_back``
        once. Return False, and count nothing, where fewer are left."""
        with self._lock:
            if size_bytes > self._left_bytes:
                return False
            self._left_bytes -= size_bytes
            return True

    def give_back(self, size_bytes: int) -> None:
        """Count ``size_bytes``, which ``take`` counted as taken, as free again."""
        with self._lock:
            self._left_bytes += size_bytes

    def lacks(self, size_bytes: int) -> int:
        """Return how many bytes have to be given back before ``size_bytes`` can be taken; 0 where
        they can be taken now."""
        return max(0, size_bytes - self._left_bytes)
