"""Weights in the host's pinned memory, and how they get from there to the device."""

import threading
from typing import Final

from lipwire.domain import Overloaded
from lipwire.engine.gpu.memory.devicememory import Bytes, DeviceOutOfMemory, Memory, Region
from lipwire.engine.gpu.memory.deviceweights import DeviceWeights
from lipwire.registry.eviction import Candidates

_RETRY_S: Final = 0.05


class PinnedTier:
    """Keeps copies of networks' weights in pinned host memory, from which they are copied to a
    device without reading the disk.

    Not thread-safe: whoever owns it calls it under a lock. Methods that free memory raise
    DeviceLost where the device has failed.
    """

    def __init__(self, memory: Memory, size_bytes: int) -> None:
        """At most ``size_bytes`` of the host's memory are pinned, through ``memory``, that of the
        device."""
        self._memory = memory
        self._size_bytes = size_bytes
        self._items: Candidates[DeviceWeights] = Candidates()
        self.taken_bytes = 0
        """By what is there and what is on its way."""

    def __len__(self) -> int:
        """Copies."""
        return len(self._items)

    def take(self, size_bytes: int) -> Bytes | None:
        """Return a block of pinned memory, (size_bytes,) uint8, for the caller to fill and to pass
        to ``keep`` or ``give_back``; None where there is no room for it.

        Where the tier is full, copies of weights are dropped to make room, the least used first,
        except those of weights that are being copied to the device.
        """
        if size_bytes > self._size_bytes:
            return None
        block: Bytes | None = None
        while self.taken_bytes + size_bytes > self._size_bytes:
            found = self._items.choose(lambda item: not item.loading, lambda _: True)
            if found is None:
                return None
            (victim,) = found
            if block is None and victim.size_bytes == size_bytes:
                block, victim.host = victim.host, None  # pinning takes milliseconds
                self._items.discard(victim)
                self.taken_bytes -= size_bytes
            else:
                self.drop(victim)
        if block is None:
            try:
                with self._memory.allocation_lock.shared():
                    block = self._memory.allocate_host(size_bytes)
            except DeviceOutOfMemory:
                return None
        self.taken_bytes += size_bytes
        return block

    def keep(self, item: DeviceWeights, block: Bytes) -> None:
        """Keep ``block`` as ``item.host``. ``take`` has returned the block, and the caller has
        written the weights of ``item`` into it. It is kept until ``drop`` is called, or ``take``
        needs the room."""
        item.host = block
        self._items.add(item)

    def give_back(self, block: Bytes) -> None:
        """Free a block that ``take`` returned and that the caller does not pass to ``keep``."""
        self.taken_bytes -= block.size
        with self._memory.allocation_lock.shared():
            self._memory.free_host(block)

    def drop(self, item: DeviceWeights) -> None:
        """Free the copy of the weights of ``item``, if there is one."""
        block = item.host
        if block is not None:
            item.host = None
            self._items.discard(item)
            self.taken_bytes -= item.size_bytes
            with self._memory.allocation_lock.shared():
                self._memory.free_host(block)

    def close(self) -> None:
        """Free all copies."""
        for item in list(self._items):
            self.drop(item)


class Uploads:
    """Copies weights to a device, one after another. Thread-safe; its owner calls ``close``."""

    def __init__(self, memory: Memory) -> None:
        """Open a stream on the device that ``memory`` belongs to. The pinned buffer is allocated
        when it is first needed."""
        self._memory = memory
        self._stream = memory.open_stream()
        self._lock = threading.Lock()
        self._scratch: Bytes | None = None
        """Pinned, for weights that the pinned tier has no room for."""

    def copy(self, region: Region, block: Bytes) -> None:
        """Copy all of ``block``, which is pinned memory, into ``region`` of the device, and wait
        for the end. Raises DeviceLost where the device has failed."""
        with self._lock:
            self._send(region, block)

    def copy_through_scratch(self, region: Region, item: DeviceWeights) -> None:
        """Copy the weights of ``item`` from their source into ``region``, through a pinned buffer.
        Waits for the end. Raises Overloaded where no memory can be pinned for the buffer,
        DeviceLost where the device has failed, and any error that ``item.source`` raises where the
        weights cannot be read."""
        with self._lock:
            block = self._scratch_of(item.size_bytes)
            item.source.write(block)
            self._send(region, block)

    def close(self) -> None:
        """Free the buffer and the stream; nothing may be copied any more."""
        self._drop_scratch()
        self._memory.close_stream(self._stream)

    def _send(self, region: Region, block: Bytes) -> None:
        self._memory.upload(self._stream, region.address, block)
        self._memory.wait(self._stream)

    def _scratch_of(self, size_bytes: int) -> Bytes:
        if self._scratch is None or self._scratch.size < size_bytes:
            self._drop_scratch()
            try:
                with self._memory.allocation_lock.shared():
                    self._scratch = self._memory.allocate_host(size_bytes)
            except DeviceOutOfMemory:
                raise Overloaded(
                    f"{size_bytes} bytes of the host's memory cannot be pinned",
                    retry_after_s=_RETRY_S,
                ) from None
        return self._scratch[:size_bytes]

    def _drop_scratch(self) -> None:
        if self._scratch is not None:
            with self._memory.allocation_lock.shared():
                self._memory.free_host(self._scratch)
            self._scratch = None
