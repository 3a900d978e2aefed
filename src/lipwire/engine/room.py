"""What one holder takes of a device, within a budget that it shares with others."""

from typing import Final

from lipwire.engine.budget import Budget
from lipwire.engine.memory import Memory, Region


class Room:
    """Places in the budget, and the regions that fill them. Not thread-safe.

    A place is taken first, then its region is allocated; they are given back one by one as well.
    """

    def __init__(
        self,
        memory: Memory,
        budget: Budget,
        *,
        most_bytes: int | None = None,
        most_items: int | None = None,
    ) -> None:
        """At most ``most_bytes`` and ``most_items``, out of what others leave of ``budget``."""
        self._memory = memory
        self._budget = budget
        self.most_bytes: Final = budget.size_bytes if most_bytes is None else most_bytes
        self._most_items = most_items
        self.taken_bytes = 0
        self.items = 0

    def take(self, size_bytes: int) -> bool:
        """A place of ``size_bytes``; False where there is none."""
        if self._most_items is not None and self.items >= self._most_items:
            return False
        if self.taken_bytes + size_bytes > self.most_bytes or not self._budget.take(size_bytes):
            return False
        self.taken_bytes += size_bytes
        self.items += 1
        return True

    def give_back(self, size_bytes: int) -> None:
        """A place that was taken."""
        self._budget.give_back(size_bytes)
        self.taken_bytes -= size_bytes
        self.items -= 1

    def allocate(self, size_bytes: int) -> Region:
        """Raises DeviceOutOfMemory, DeviceLost."""
        with self._memory.gate.together():
            return self._memory.allocate(size_bytes)

    def free(self, region: Region) -> None:
        """Raises DeviceLost."""
        with self._memory.gate.together():
            self._memory.free(region)

    def recycled(self, spare: Region | None, region: Region, size_bytes: int) -> Region | None:
        """``region`` instead of a new one of ``size_bytes`` where it fits and there is no ``spare``
        yet: freeing makes a GPU wait. It is freed where not."""
        if spare is None and region.size_bytes == size_bytes:
            return region
        self.free(region)
        return spare
