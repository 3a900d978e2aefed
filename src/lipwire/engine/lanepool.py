"""A device's lanes, each given to one run at a time."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from lipwire.engine.lanes import Lane
from lipwire.engine.memory import DeviceLost
from lipwire.engine.residents import Resident


class LanePool:
    """Thread-safe; ``close`` it."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = tuple(lanes)
        self._free = list(lanes)
        """Those that have rested longest come first."""
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether lanes are given out no more."""
        return self._closed

    @property
    def slot_bytes(self) -> int:
        """What the slots of all lanes take of the device."""
        return sum(lane.slot_bytes for lane in self._lanes)

    @property
    def staging_bytes(self) -> tuple[int, int]:
        """What inputs and outputs take: of the device, and of the host's pinned memory."""
        staging = [lane.staging_bytes for lane in self._lanes]
        return sum(on_device for on_device, _ in staging), sum(pinned for _, pinned in staging)

    @contextmanager
    def taken(self, resident: Resident | None) -> Iterator[Lane]:
        """A lane for the block, if possible one that has the weights in place, where that counts.
        Waits for one.

        Raises RuntimeError where the pool is closed.
        """
        lane = self._take(resident)
        try:
            yield lane
        finally:
            self._put_back(lane)

    def tidy(self) -> None:
        """Have lanes that nobody runs on give back what they keep for networks that are gone."""
        with self._changed:
            if self._closed:
                return
            idle = list(self._free)
            self._free.clear()
        try:
            for lane in idle:
                lane.tidy()
        finally:
            self._put_back(*idle)

    def close(self) -> bool:
        """Runs under way finish; later ones raise. False where somebody else has begun to."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self._lanes))
        for lane in self._lanes:
            with suppress(DeviceLost):  # which keeps nothing that is worth giving back
                lane.close()
        return True

    def _take(self, resident: Resident | None) -> Lane:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._free))
            if self._closed:
                raise RuntimeError("the engine is closed")
            for lane in self._free:
                if resident is not None and lane.holds(resident):
                    break
            else:
                lane = self._free[0]
            self._free.remove(lane)
            return lane

    def _put_back(self, *lanes: Lane) -> None:
        with self._changed:
            self._free.extend(lanes)
            self._changed.notify_all()
