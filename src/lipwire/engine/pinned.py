"""Weights in the host's pinned memory, and how they get from there to the device."""

import threading
from typing import Final

from lipwire.domain import Overloaded
from lipwire.engine.memory import Bytes, DeviceOutOfMemory, Memory, Region
from lipwire.engine.residents import Resident

_RETRY_S: Final = 0.05


class PinnedTier:
    """Copies of weights, so that coming back to the device does not take the disk. Not thread-safe:
    called under its owner's lock."""

    def __init__(self, memory: Memory, size_bytes: int) -> None:
        """At most ``size_bytes``."""
        self._memory = memory
        self._size_bytes = size_bytes
        self._items: set[Resident] = set()
        self.taken_bytes = 0
        """By what is there and what is on its way."""

    def __len__(self) -> int:
        """Copies."""
        return len(self._items)

    def take(self, size_bytes: int) -> Bytes | None:
        """A block to fill, to be kept or given back; None where there is no room.

        Items that are being loaded stay.
        """
        if size_bytes > self._size_bytes:
            return None
        block: Bytes | None = None
        while self.taken_bytes + size_bytes > self._size_bytes:
            idle = (item for item in self._items if not item.loading)
            victim = min(idle, key=lambda item: item.worth, default=None)
            if victim is None:
                return None
            if block is None and victim.size_bytes == size_bytes:
                block, victim.host = victim.host, None  # pinning takes milliseconds
                self._items.discard(victim)
                self.taken_bytes -= size_bytes
            else:
                self.drop(victim)
        if block is None:
            try:
                with self._memory.gate.together():
                    block = self._memory.allocate_host(size_bytes)
            except DeviceOutOfMemory:
                return None
        self.taken_bytes += size_bytes
        return block

    def keep(self, item: Resident, block: Bytes) -> None:
        """``block`` has the weights of ``item`` now."""
        item.host = block
        self._items.add(item)

    def give_back(self, block: Bytes) -> None:
        """A block that was taken and not kept."""
        self.taken_bytes -= block.size
        with self._memory.gate.together():
            self._memory.free_host(block)

    def drop(self, item: Resident) -> None:
        """Give up the copy of ``item``, if there is one."""
        block = item.host
        if block is not None:
            item.host = None
            self._items.discard(item)
            self.taken_bytes -= item.size_bytes
            with self._memory.gate.together():
                self._memory.free_host(block)

    def close(self) -> None:
        """Drop all copies."""
        for item in list(self._items):
            self.drop(item)


class Uploads:
    """Copies weights to the device, one after another. Thread-safe; ``close`` it."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._stream = memory.open_stream()
        self._lock = threading.Lock()
        self._scratch: Bytes | None = None
        """Pinned, for weights that the pinned tier has no room for."""

    def copy(self, region: Region, block: Bytes) -> None:
        """From pinned memory."""
        with self._lock:
            self._send(region, block)

    def copy_through_scratch(self, region: Region, item: Resident) -> None:
        """From where ``item`` comes from. Raises what that raises, Overloaded."""
        with self._lock:
            block = self._scratch_of(item.size_bytes)
            item.source.write(block)
            self._send(region, block)

    def close(self) -> None:
        """Nothing may be copied any more."""
        self._drop_scratch()
        self._memory.close_stream(self._stream)

    def _send(self, region: Region, block: Bytes) -> None:
        self._memory.upload(self._stream, region.address, block)
        self._memory.wait(self._stream)

    def _scratch_of(self, size_bytes: int) -> Bytes:
        if self._scratch is None or self._scratch.size < size_bytes:
            self._drop_scratch()
            try:
                with self._memory.gate.together():
                    self._scratch = self._memory.allocate_host(size_bytes)
            except DeviceOutOfMemory:
                raise Overloaded(
                    f"{size_bytes} bytes of the host's memory cannot be pinned",
                    retry_after_s=_RETRY_S,
                ) from None
        return self._scratch[:size_bytes]

    def _drop_scratch(self) -> None:
        if self._scratch is not None:
            with self._memory.gate.together():
                self._memory.free_host(self._scratch)
            self._scratch = None
