"""Which avatars' weights are on a device, and how they are brought there.

    device ── pinned memory of the host ── mapped file

Weights are copied towards the device when they are used and evicted when others need the room:
those of least worth first (``registry.eviction``), never those in use. A copy stays in the pinned
tier as long as that has room, so that weights that are used again need not be read from the disk.
Each tier has a budget in bytes, and the device may have less than its budget: when it really runs
out, something is evicted and the allocation is tried again.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from lipwire.domain import Overloaded, Unavailable
from lipwire.engine.gpu.memory.budgetshare import BudgetShare
from lipwire.engine.gpu.memory.devicebudget import DeviceBudget
from lipwire.engine.gpu.memory.devicememory import DeviceOutOfMemory, Memory, Region
from lipwire.engine.gpu.memory.deviceweights import DeviceWeights, Source
from lipwire.engine.gpu.memory.pinned import PinnedTier, Uploads
from lipwire.engine.usage import WeightsStats
from lipwire.registry.eviction import PinnedItems, Policy

_RETRY_S: Final = 0.05
"""When a run of somebody else's will be over."""


class WeightsCache:
    """Keeps networks' weights on one device, copies those there that are used, and evicts the least
    used ones that are not in use when there is no room. Thread-safe.

        with weights_cache.use(weights) as region:
            ...  # region holds the weights, and nothing takes them away
    """

    def __init__(
        self,
        memory: Memory,
        *,
        device_bytes: int | DeviceBudget,
        host_bytes: int = 0,
        max_items: int | None = None,
        policy: Policy = "lfu",
        evict_others: Callable[[int], int] = lambda size_bytes: 0,
    ) -> None:
        """``memory`` is that of the device. At most ``device_bytes`` bytes (a number, or what is
        left of a ``DeviceBudget``) and the weights of ``max_items`` networks (None: no limit) are
        on the device; copies of ``host_bytes`` bytes at most are kept in pinned host memory.
        ``policy`` says what is evicted first: "lru" what was not used for longest, "lfu" what was
        used least often.

        Where ``device_bytes`` is a budget shared with others, ``evict_others`` is called with a
        number of bytes that they are to free, before any weights are evicted; it returns how many
        bytes were freed. It is called under a lock and must not call this object.
        """
        self._memory = memory
        self._budget = (
            device_bytes if isinstance(device_bytes, DeviceBudget) else DeviceBudget(device_bytes)
        )
        self._evict_others = evict_others
        self._share = BudgetShare(memory, self._budget, most_items=max_items)
        """Of what is on the device and what is on its way."""
        self._pinned = PinnedTier(memory, host_bytes)
        self._uploads = Uploads(memory)
        self._changed = threading.Condition()
        self._on_device: PinnedItems[DeviceWeights] = PinnedItems(policy)
        self._hits = self._from_host = self._from_disk = 0
        self._evictions = self._out_of_memory = 0
        self._closed = False

    def add(self, source: Source) -> DeviceWeights:
        """Return an object for the weights that are read from ``source``. Nothing is copied yet.
        The caller passes the object to ``use``, and to ``unload`` or ``remove`` in the end."""
        return DeviceWeights(source)

    def unload(self, item: DeviceWeights) -> None:
        """Free the copies of the weights ``item`` on the device and in pinned memory: at once, or
        when their last user is done. Later uses raise Unavailable. Raises DeviceLost where the
        device has failed."""
        with self._changed:
            self.remove(item)
            self._sweep()

    def remove(self, item: DeviceWeights) -> None:
        """Have the copies of the weights ``item`` freed later, the next time that any weights are
        used. Later uses of ``item`` raise Unavailable.

        May be called during a garbage collection, in any thread: it takes no lock.
        """
        item.closed = True
        self._on_device.remove_later(item)

    @contextmanager
    def use(
        self, item: DeviceWeights, *, wait_s: float = 0.0, beside: bool = False
    ) -> Iterator[Region]:
        """Context manager: give the region of the device that has the weights ``item``, and keep
        them there for the block; they are copied there if needed, which is waited for.

        Where there is no room and everything there is in use, waits up to ``wait_s`` seconds.
        ``beside`` says that the caller uses other weights already. Then it does not wait for
        another thread that is copying ``item``, because that thread may wait for those other
        weights, but raises Overloaded. Raises Overloaded also where there is no room in the end,
        Unavailable where ``item`` was unloaded or the cache closed, DeviceLost where the device has
        failed, and any error that ``item.source`` raises where the weights cannot be read.
        """
        region = self._enter(item, wait_s, beside=beside)
        try:
            yield region
        finally:
            with self._changed:
                self._leave(item)

    def prefetch(self, item: DeviceWeights) -> bool:
        """Copy the weights ``item`` to the device before they are used, and wait until they are
        there. Returns True then, and at once where they are there already. Returns False, without
        waiting, where there is no room for them.

        Raises Unavailable where ``item`` was unloaded or the cache closed, DeviceLost where the
        device has failed, and any error that ``item.source`` raises where the weights cannot be
        read.
        """
        try:
            with self.use(item):
                return True
        except Overloaded:
            return False

    def touch(self, item: DeviceWeights) -> None:
        """Count a use of the weights ``item``, so that they are evicted later. To be called for a
        run that found the weights in its stream's slot, the place from which ONNX Runtime reads
        weights, and did not need ``use``."""
        with self._changed:
            self._on_device.use(item)
            self._hits += 1

    def give_up(self, size_bytes: int) -> int:
        """Evict weights to free ``size_bytes`` of the device for something else, the least used
        first; return how many bytes were freed.

        The result may be more than ``size_bytes``, or less, because weights in use stay. Raises
        DeviceLost where the device has failed.
        """
        with self._changed:
            self._sweep()
            self._out_of_memory += 1
            freed_bytes = 0
            while freed_bytes < size_bytes:
                region = self._evict_one()
                if region is None:
                    break
                self._share.free(region)
                freed_bytes += region.size_bytes
            return freed_bytes

    def stats(self) -> WeightsStats:
        """Return how many weights are on the device and in pinned memory now, and how often they
        were found, copied and evicted since the start."""
        with self._changed:
            self._sweep()
            return WeightsStats(
                self._share.taken_bytes,
                self._share.items,
                self._pinned.taken_bytes,
                len(self._pinned),
                self._hits,
                self._from_host,
                self._from_disk,
                self._evictions,
                self._out_of_memory,
            )

    def close(self) -> None:
        """Free all copies, once the uses under way are over. Later uses raise Unavailable. Raises
        DeviceLost where the device has failed. Closing twice is allowed."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._on_device.pins)
            for item in list(self._on_device):
                self._share.free(self._take_off(item))
            self._pinned.close()
            self._sweep()
            self._uploads.close()

    # -- using (the lock is taken here) ------------------------------------------------------------

    def _enter(self, item: DeviceWeights, wait_s: float, *, beside: bool) -> Region:
        with self._changed:
            self._sweep()
            while item.region is None and item.loading and not self._closed:
                if beside:
                    raise Overloaded("a network is on its way", retry_after_s=_RETRY_S)
                self._changed.wait()
            if self._closed:
                raise Unavailable("the engine is closed")
            if item.closed:
                raise Unavailable("the network was unloaded")
            self._on_device.pin(item)
            if item.region is not None:
                self._hits += 1
                return item.region
            item.loading = True
            try:
                region = self._wait_for_room(item.size_bytes, wait_s)
            except BaseException:
                item.loading = False
                self._leave(item)
                raise
        try:
            self._fill(item, region)
        except BaseException:
            with self._changed:
                self._share.give_back(item.size_bytes)
                item.loading = False
                try:
                    self._share.free(region)
                finally:
                    self._leave(item)
            raise
        with self._changed:
            item.region = region
            self._on_device.add(item)
            item.loading = False
            self._changed.notify_all()
        return region

    def _wait_for_room(self, size_bytes: int, wait_s: float) -> Region:
        """As ``_make_room``, under the lock, as soon as users leave."""
        until_s = time.monotonic() + wait_s
        while True:
            try:
                return self._make_room(size_bytes)
            except Overloaded:
                left_s = until_s - time.monotonic()
                used = any(other.pins for other in self._on_device)
                if left_s <= 0 or not used or self._closed:
                    raise
                self._changed.wait(left_s)

    def _fill(self, item: DeviceWeights, region: Region) -> None:
        """Copy the weights to ``region``. ``item`` is marked as loading: its copies stay."""
        block = item.host
        if block is not None:
            self._uploads.copy(region, block)
            with self._changed:
                self._from_host += 1
            return
        with self._changed:
            block = self._pinned.take(item.size_bytes)
        if block is None:
            self._uploads.copy_through_scratch(region, item)
        else:
            try:
                item.source.write(block)
                self._uploads.copy(region, block)
            except BaseException:
                with self._changed:
                    self._pinned.give_back(block)
                raise
            with self._changed:
                self._pinned.keep(item, block)
        with self._changed:
            self._from_disk += 1

    # -- room (all under the lock) -----------------------------------------------------------------

    def _make_room(self, size_bytes: int) -> Region:
        """A region of ``size_bytes``, and its place in the budget. Raises Overloaded."""
        spare: Region | None = None
        taken = False
        try:
            while not (taken := self._share.take(size_bytes)):
                lacking_bytes = self._budget.lacks(size_bytes)
                if not lacking_bytes or not self._evict_others(lacking_bytes):
                    spare = self._share.recycled(spare, self._evicted(size_bytes), size_bytes)
            while spare is None:
                try:
                    spare = self._share.allocate(size_bytes)
                except DeviceOutOfMemory:
                    self._out_of_memory += 1
                    if not self._evict_others(size_bytes):
                        spare = self._share.recycled(spare, self._evicted(size_bytes), size_bytes)
        except BaseException:
            if taken:
                self._share.give_back(size_bytes)
            if spare is not None:
                self._share.free(spare)
            raise
        return spare

    def _evicted(self, size_bytes: int) -> Region:
        region = self._evict_one()
        if region is None:
            raise Overloaded(
                f"{size_bytes} bytes for a network do not fit on {self._memory.device}:"
                f" {self._budget.taken_bytes} of {self._budget.size_bytes} are taken, all of them"
                " in use",
                retry_after_s=_RETRY_S,
            )
        return region

    def _evict_one(self) -> Region | None:
        """Take the least worthy item that nobody uses off the device; None where there is none."""
        victim = self._on_device.victim()
        if victim is None:
            return None
        self._evictions += 1
        return self._take_off(victim)

    def _take_off(self, item: DeviceWeights) -> Region:
        region = item.region
        assert region is not None  # it is one of those on the device
        item.region = None
        self._on_device.discard(item)
        self._share.give_back(item.size_bytes)
        return region

    def _leave(self, item: DeviceWeights) -> None:
        self._on_device.unpin(item)
        self._sweep()
        self._changed.notify_all()

    def _sweep(self) -> None:
        """Evict what was removed and is not in use."""
        for item in self._on_device.removed():
            if item.region is not None:
                self._share.free(self._take_off(item))
            self._pinned.drop(item)
