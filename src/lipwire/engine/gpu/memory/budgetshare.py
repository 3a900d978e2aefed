"""What one holder takes of a device, within a budget that it shares with others."""

from typing import Final

from lipwire.engine.gpu.memory.devicebudget import DeviceBudget
from lipwire.engine.gpu.memory.devicememory import Memory, Region


class BudgetShare:
    """A share of a device's budget of bytes, and the regions of memory that are allocated in it.
    Not thread-safe.

    ``take`` and ``give_back`` only count, ``allocate`` and ``free`` only change memory: the caller
    calls ``take`` before ``allocate``, and ``give_back`` for each region that it frees.
    """

    def __init__(
        self,
        memory: Memory,
        budget: DeviceBudget,
        *,
        most_bytes: int | None = None,
        most_items: int | None = None,
    ) -> None:
        """Regions are allocated in ``memory``. At most ``most_bytes`` bytes and ``most_items``
        items (None: no limit) can be taken at a time, of what other shares leave of ``budget``."""
        self._memory = memory
        self._budget = budget
        self.most_bytes: Final = budget.size_bytes if most_bytes is None else most_bytes
        self._most_items = most_items
        self.taken_bytes = 0
        self.items = 0

    def take(self, size_bytes: int) -> bool:
        """Count ``size_bytes`` and one item as taken of the share, and return True. Return False,
        and count nothing, where they do not fit in the share or the budget. Allocates nothing."""
        if self._most_items is not None and self.items >= self._most_items:
            return False
        if self.taken_bytes + size_bytes > self.most_bytes or not self._budget.take(size_bytes):
            return False
        self.taken_bytes += size_bytes
        self.items += 1
        return True

    def give_back(self, size_bytes: int) -> None:
        """Count ``size_bytes`` and one item, which ``take`` counted as taken, as free again. Frees
        no region."""
        self._budget.give_back(size_bytes)
        self.taken_bytes -= size_bytes
        self.items -= 1

    def allocate(self, size_bytes: int) -> Region:
        """Allocate a region of ``size_bytes`` bytes of the device, which the caller has counted
        with ``take`` before. Raises DeviceOutOfMemory where the device is full, and DeviceLost
        where the device has failed."""
        with self._memory.allocation_lock.shared():
            return self._memory.allocate(size_bytes)

    def free(self, region: Region) -> None:
        """Free a region; its bytes still count as taken until ``give_back`` is called. Raises
        DeviceLost where the device has failed."""
        with self._memory.allocation_lock.shared():
            self._memory.free(region)

    def recycled(self, spare: Region | None, region: Region, size_bytes: int) -> Region | None:
        """Free ``region``, whose content was evicted to make room for ``size_bytes`` bytes, or keep
        it to be used again. Return the region that is kept; None where there is none. To be called
        for each region that is evicted, with the result of the call before as ``spare`` (None at
        first).

        ``region`` is kept if it has exactly that size and ``spare`` is None; otherwise it is freed
        and ``spare`` is returned. Freeing a region makes a GPU wait, using it again does not.
        Raises DeviceLost where the device has failed.
        """
        if spare is None and region.size_bytes == size_bytes:
            return region
        self.free(region)
        return spare
