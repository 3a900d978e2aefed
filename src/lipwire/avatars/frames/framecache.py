"""Decoded frames in memory, of all avatars of a process together: those used last, up to a budget.

A frame is here because it was shown or is about to be. Which one goes first: the one not used for
longest. An avatar walks its frames back and forth, so those are the ones that come last.
"""

import threading
from collections import Counter, OrderedDict
from functools import cache
from typing import Final

from lipwire.config import usable_memory_bytes
from lipwire.domain import UInt8Array

MAX_DEFAULT_BUDGET_BYTES: Final = 768 * 1024 * 1024
"""Holds 11 seconds of raw frames of 1280x720, or 22 seconds of their planes."""

FrameKey = tuple[str, int]
"""What the frames are (content and form), and the number of one."""


class FrameCache:
    """Keeps decoded frames in memory, of all avatars of a process together, at most
    ``budget_bytes`` bytes; beyond that the least recently used ones are evicted. Thread-safe.

    A key is (text, number of the frame); the text, called ``content``, says which frames these are
    and in which form. The arrays are shared: nobody may write to them.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes: Final = budget_bytes
        self._frames: OrderedDict[FrameKey, UInt8Array] = OrderedDict()
        self._held_bytes = 0
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Bytes of the frames in the cache."""
        return self._held_bytes

    def get(self, key: FrameKey) -> UInt8Array | None:
        """Return the frame of ``key``, (content and form, number of the frame), which counts as a
        use; None where it is not in the cache. The array must not be written to."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
            return frame

    def __contains__(self, key: FrameKey) -> bool:
        return key in self._frames

    def put(self, key: FrameKey, frame: UInt8Array) -> None:
        """Keep ``frame`` under ``key``, (content and form, number of the frame), and evict the
        least recently used frames until all fit into the budget; a frame larger than the budget is
        not kept. ``frame`` must not be written to afterwards."""
        with self._lock:
            old = self._frames.pop(key, None)
            self._held_bytes -= 0 if old is None else old.nbytes
            if frame.nbytes > self.budget_bytes:
                return
            self._held_bytes += frame.nbytes
            self._frames[key] = frame
            while self._held_bytes > self.budget_bytes:
                _, oldest = self._frames.popitem(last=False)
                self._held_bytes -= oldest.nbytes

    def use(self, content: str) -> None:
        """Count one more user of the frames whose keys have ``content`` as their text. Each call
        has to be followed by one of ``leave`` later. Frames may be put without a user; then nothing
        but the budget evicts them."""
        with self._lock:
            self._users[content] += 1

    def leave(self, content: str) -> None:
        """Count one user less of the frames whose keys have ``content`` as their text; they are
        evicted when the last one leaves."""
        with self._lock:
            self._users[content] -= 1
            if self._users[content] <= 0:
                del self._users[content]
                for key in [key for key in self._frames if key[0] == content]:
                    self._held_bytes -= self._frames.pop(key).nbytes


@cache
def shared_cache() -> FrameCache:
    """Return the cache of decoded frames that all avatars of this process use unless they are given
    another: of 768 MiB, or a quarter of the machine's memory if that is less."""
    return FrameCache(min(MAX_DEFAULT_BUDGET_BYTES, usable_memory_bytes() // 4))
