"""Which avatars' weights are on a device, and what comes next to it.

    device ── pinned memory of the host ── mapped file

Weights are copied towards the device when they are used and leave it when others need the room: the
least worthy first (``domain.eviction``), never one that is in use. A copy stays in the pinned tier
as long as that has room, so that coming back does not take the disk. Each tier has a budget in
bytes, and the device may have less than its budget: when it really runs out, something is given up
and the allocation is tried again.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from lipwire.domain import Overloaded, Unavailable
from lipwire.domain.eviction import Policy, Worths
from lipwire.engine.budget import Budget
from lipwire.engine.memory import DeviceOutOfMemory, Memory, Region
from lipwire.engine.pinned import PinnedTier, Uploads
from lipwire.engine.residents import Resident, Source
from lipwire.engine.room import Room

_RETRY_S: Final = 0.05
"""When a run of somebody else's will be over."""


@dataclass(frozen=True, slots=True)
class ResidencyStats:
    """Counts since the start, and bytes now."""

    device_bytes: int
    device_items: int
    host_bytes: int
    host_items: int
    hits: int
    """Uses that found the weights on the device."""
    from_host: int
    """Uploads from the pinned tier, and from the disk."""
    from_disk: int
    evictions: int
    """From the device."""
    out_of_memory: int
    """Allocations that failed at first."""


class Residency:
    """Weights on one device. Thread-safe.

    with residency.use(resident) as region:
        ...  # region holds the weights, and nothing takes them away
    """

    def __init__(
        self,
        memory: Memory,
        *,
        device_bytes: int | Budget,
        host_bytes: int = 0,
        max_items: int | None = None,
        policy: Policy = "lfu",
        give_way: Callable[[int], int] = lambda size_bytes: 0,
    ) -> None:
        """At most ``device_bytes`` and ``max_items`` on the device, ``host_bytes`` pinned.

        Where ``device_bytes`` is shared with others, ``give_way`` has them free so many bytes, or
        fewer, and says how many it were; they are asked before any weights are given up. It is
        called under a lock and must not come back.
        """
        self._memory = memory
        self._budget = device_bytes if isinstance(device_bytes, Budget) else Budget(device_bytes)
        self._give_way = give_way
        self._room = Room(memory, self._budget, most_items=max_items)
        """Of what is on the device and what is on its way."""
        self._pinned = PinnedTier(memory, host_bytes)
        self._uploads = Uploads(memory)
        self._worths = Worths(policy)
        self._changed = threading.Condition()
        self._on_device: set[Resident] = set()
        self._removed: deque[Resident] = deque()
        self._uses = 0
        """Under way."""
        self._hits = self._from_host = self._from_disk = 0
        self._evictions = self._out_of_memory = 0
        self._closed = False

    def add(self, source: Source) -> Resident:
        """Weights that may be used from now on. Nothing is copied yet."""
        return Resident(source)

    def unload(self, item: Resident) -> None:
        """Give up the copies of ``item``: at once, or when its last user leaves."""
        with self._changed:
            self.remove(item)
            self._sweep()

    def remove(self, item: Resident) -> None:
        """As ``unload``, at the next use of anything.

        May be called by a garbage collection, in the middle of whatever: it takes no lock.
        """
        item.closed = True
        self._removed.append(item)

    @contextmanager
    def use(self, item: Resident, *, wait_s: float = 0.0, beside: bool = False) -> Iterator[Region]:
        """The weights of ``item`` on the device, brought there first where they are not.

        Where there is no room and all that is there is in use, waits up to ``wait_s`` until some of
        it is not. Whoever uses others already says so (``beside``) and is never made to wait, for
        somebody may wait for those. Raises Overloaded in the end, and what the source raises.
        """
        region = self._enter(item, wait_s, beside=beside)
        try:
            yield region
        finally:
            with self._changed:
                self._leave(item)

    def prefetch(self, item: Resident) -> bool:
        """Bring ``item`` to the device before it is used. False where there is no room for it.

        Raises what the source raises.
        """
        try:
            with self.use(item):
                return True
        except Overloaded:
            return False

    def touch(self, item: Resident) -> None:
        """Count a use that did not need the copy on the device."""
        with self._changed:
            self._count_use(item)
            self._hits += 1

    def give_up(self, size_bytes: int) -> int:
        """Free ``size_bytes`` of the device for something else, or more; how many it are.

        They may be fewer, for what is in use stays.
        """
        with self._changed:
            self._sweep()
            self._out_of_memory += 1
            freed_bytes = 0
            while freed_bytes < size_bytes:
                region = self._evict_one()
                if region is None:
                    break
                self._room.free(region)
                freed_bytes += region.size_bytes
            return freed_bytes

    def stats(self) -> ResidencyStats:
        with self._changed:
            self._sweep()
            return ResidencyStats(
                self._room.taken_bytes,
                self._room.items,
                self._pinned.taken_bytes,
                len(self._pinned),
                self._hits,
                self._from_host,
                self._from_disk,
                self._evictions,
                self._out_of_memory,
            )

    def close(self) -> None:
        """Give everything up. Waits for uses under way; later ones raise."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._uses)
            for item in list(self._on_device):
                self._room.free(self._take_off(item))
            self._pinned.close()
            self._removed.clear()
            self._uploads.close()

    # -- using (the lock is taken here) ------------------------------------------------------------

    def _enter(self, item: Resident, wait_s: float, *, beside: bool) -> Region:
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
            self._uses += 1
            item.pins += 1
            self._count_use(item)
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
                self._room.give_back(item.size_bytes)
                item.loading = False
                try:
                    self._room.free(region)
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

    def _fill(self, item: Resident, region: Region) -> None:
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
            while not (taken := self._room.take(size_bytes)):
                lacking_bytes = self._budget.lacks(size_bytes)
                if not lacking_bytes or not self._give_way(lacking_bytes):
                    spare = self._room.recycled(spare, self._evicted(size_bytes), size_bytes)
            while spare is None:
                try:
                    spare = self._room.allocate(size_bytes)
                except DeviceOutOfMemory:
                    self._out_of_memory += 1
                    if not self._give_way(size_bytes):
                        spare = self._room.recycled(spare, self._evicted(size_bytes), size_bytes)
        except BaseException:
            if taken:
                self._room.give_back(size_bytes)
            if spare is not None:
                self._room.free(spare)
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
        idle = (item for item in self._on_device if not item.pins)
        victim = min(idle, key=lambda item: item.worth, default=None)
        if victim is None:
            return None
        self._evictions += 1
        return self._take_off(victim)

    def _take_off(self, item: Resident) -> Region:
        region = item.region
        assert region is not None  # it is one of those on the device
        item.region = None
        self._on_device.discard(item)
        self._room.give_back(item.size_bytes)
        return region

    def _leave(self, item: Resident) -> None:
        item.pins -= 1
        self._uses -= 1
        self._sweep()
        self._changed.notify_all()

    def _sweep(self) -> None:
        """Let go of what was removed and is idle."""
        for _ in range(len(self._removed)):
            item = self._removed.popleft()
            if item.pins or item.loading:
                self._removed.append(item)
                continue
            if item.region is not None:
                self._room.free(self._take_off(item))
            self._pinned.drop(item)

    def _count_use(self, item: Resident) -> None:
        self._worths.holding(self._room.items)
        item.worth = self._worths.after_use(item.worth)
