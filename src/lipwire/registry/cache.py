"""What a registry holds: values by name, pinned while they are used, and the room that they take.

One lock guards all bookkeeping of a registry and is held for microseconds; closing values happens
outside it. Methods that say so are called with the lock held, the others without.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from lipwire.domain import AvatarInvalid, Overloaded, Unavailable
from lipwire.registry.budget import Budget
from lipwire.registry.eviction import NEVER_USED, PinnedItems, Policy
from lipwire.registry.items import Counts, Item, Load, State

_LOG: Final = logging.getLogger(__name__)

V = TypeVar("V")


class Cache(Generic[V]):
    """Items within a budget, of which those of least worth that nobody uses are evicted first.
    Thread-safe."""

    def __init__(
        self,
        *,
        max_items: int | None,
        max_bytes: int | None,
        policy: Policy,
        clock: Callable[[], float],
        kind: str,
    ) -> None:
        """The arguments have been checked. ``max_items`` and ``max_bytes`` are None for no limit.
        ``clock`` gives seconds. ``kind`` names what is held in messages."""
        self.kind: Final = kind
        self.clock: Final = clock
        self.lock: Final = threading.Lock()
        self.items: Final[dict[str, Item[V]]] = {}
        """What is found by its name."""
        self._pinned: PinnedItems[Item[V]] = PinnedItems(policy)
        self.budget: Final[Budget[V]] = Budget(max_items, max_bytes, kind, self._pinned)
        self.counts: Final = Counts()
        self.closed = False
        self.retired = 0
        """Unloaded or replaced, and still in use."""
        self._held_bytes = 0
        self._room = threading.Condition(self.lock)
        """Told whenever something has been closed."""

    def closed_error(self) -> Unavailable:
        """Return the error that calls are to raise after the cache was closed."""
        return Unavailable(f"{self.kind}s are being closed; ask another server")

    # -- users -----------------------------------------------------------------------------------

    def hit(self, name: str, suits: Callable[[V], bool] | None) -> Item[V] | None:
        """Return the item of ``name``, pinned once more, which counts as a use; None where nothing
        of that name is held or the one held may be out of date.

        ``suits(value)`` says whether the value held will do; it is called with the lock held. Where
        ``suits`` is None a value will do until its version is to be looked at again.
        """
        now = self.clock()
        with self.lock:
            item = self.items.get(name)
            if item is None:
                return None
            if not (now < item.check_at_s if suits is None else suits(item.value)):
                return None
            self.counts.hits += 1
            self.pin(item, now)
            return item

    def pin(self, item: Item[V], now: float) -> None:
        """Count one more user of ``item``, at time ``now`` of ``clock``. The caller holds the
        lock."""
        self._pinned.pin(item)
        item.uses += 1
        item.last_used_s = now

    def unpin(self, item: Item[V]) -> None:
        """Count one user of ``item`` less, and close it where it was the last one of an item that
        was unloaded or replaced. The caller must not hold the lock."""
        now = self.clock()
        with self.lock:
            item.last_used_s = now  # a use may last longer than the idle time
            closing = self.unpinned(item)
        if closing:
            self.finish(closing)

    def unpinned(self, item: Item[V]) -> list[Item[V]]:
        """Count one user of ``item`` less. Returns the items to be closed, none or this one.

        The caller holds the lock, and gives what is returned to ``finish`` when it has released it.
        """
        self._pinned.unpin(item)
        if item.pins or item.state is not State.RETIRED:
            return []
        self.retired -= 1
        return self._begin_closing(item)

    # -- coming and going ------------------------------------------------------------------------

    def put(self, item: Item[V], *, users: int, now: float) -> list[Item[V]]:
        """Hold ``item`` in the place of any other of its name. Returns the items to be closed.

        ``users`` is how many times it is pinned at once, ``now`` the time of ``clock``. What was
        reserved for its load is counted as the item's from then on, so the sums stay as they are.
        The caller holds the lock, and gives what is returned to ``finish`` when it has released it.
        """
        old = self.items.get(item.name)
        item.worth = self._pinned.worths.remembered(item.name) if old is None else old.worth
        closing = [] if old is None else self.retire(old)
        self.counts.swaps += old is not None
        item.loaded_at_s = item.last_used_s = now
        self.items[item.name] = item
        self._held_bytes += item.bytes
        self._pinned.add(item)
        for _ in range(users):
            self.pin(item, now)
        if item.worth == NEVER_USED:
            self._pinned.use(item)
        return closing

    def retire(self, item: Item[V]) -> list[Item[V]]:
        """Have ``item`` no longer found by its name. Returns the items to be closed: this one where
        nobody uses it, else none, and its last user closes it.

        The caller holds the lock, and gives what is returned to ``finish`` when it has released it.
        """
        if item.state is not State.HELD:
            return []
        if self.items.get(item.name) is item:
            del self.items[item.name]
        self._held_bytes -= item.bytes
        self._pinned.discard(item)
        item.state = State.RETIRED
        if item.pins:
            self.retired += 1
            return []
        return self._begin_closing(item)

    def _begin_closing(self, item: Item[V]) -> list[Item[V]]:
        self.budget.begin_closing(item)
        return [item]

    def finish(self, closing: Iterable[Item[V]]) -> None:
        """Close the items ``closing``, as the methods above return them, and count the room that
        each took as free when it is closed.

        The caller must not hold the lock: closing may take long.
        """
        for item in closing:
            self.close_value(item)
            with self.lock:
                self.budget.closed(item)
                self._room.notify_all()

    def close_value(self, item: Item[V]) -> None:
        """Close the value of ``item``; an error in that is logged."""
        try:
            item.close()
        except Exception:
            _LOG.exception("%s %s could not be closed", self.kind, item.name)

    def wait_empty(self, until_s: float | None) -> bool:
        """Wait until everything is closed, at most until the time ``until_s``, in seconds of
        ``time.monotonic``; None is no limit.

        Returns whether everything is.
        """
        with self.lock:
            while self.budget.items:
                left = None if until_s is None else until_s - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._room.wait(left)
        return True

    # -- room ------------------------------------------------------------------------------------

    def reserve(self, load: Load[V]) -> None:
        """Reserve room for the item of ``load`` before it is loaded, evicting others where that is
        needed, and waiting for those that are being closed.

        Its size is what it took last time. Where it was never measured the mean of the items held
        is reserved, if there is room for it. Raises Overloaded where too much is in use, and
        Unavailable where there is no room and the cache was closed.
        """
        self._make_room(load, items=1, size=0)
        with self.lock:
            known = self.budget.known_size(load.name)
            guess = self._held_bytes // len(self.items) if self.items else 0
        try:
            self._make_room(load, items=0, size=guess if known is None else known)
        except Overloaded:
            if known is not None:
                raise

    def measured(self, load: Load[V], item: Item[V]) -> None:
        """Reserve for ``load`` what its loaded ``item`` really takes, and remember that size.

        Raises AvatarInvalid where the item is larger than the whole budget, Overloaded where it
        does not fit beside what is in use, Unavailable where it does not and the cache was closed.
        """
        if self.budget.max_bytes is not None and item.bytes > self.budget.max_bytes:
            raise AvatarInvalid(
                f"{self.kind} {load.name} takes {item.bytes:,} bytes of memory; allowed are"
                f" {self.budget.max_bytes:,} for all together"
            )
        with self.lock:
            self.budget.learn(load.name, item.bytes)
        self._make_room(load, items=0, size=item.bytes - load.reserved_bytes)

    def give_back(self, load: Load[V]) -> None:
        """Release what was reserved for a load that failed. The caller holds the lock."""
        self.budget.give_back(load)
        self._room.notify_all()

    def _make_room(self, load: Load[V], *, items: int, size: int) -> None:
        """Reserve for ``load``, evicting what is not in use. Raises Overloaded."""
        while True:
            closing: list[Item[V]] = []
            with self.lock:
                if self.budget.reserve(load, items, size):
                    return
                if self.closed:
                    raise self.closed_error()
                if self.budget.will_fit(items, size):
                    self._room.wait()  # another thread is closing what has to go
                    continue
                for item in self.budget.victims(items, size, sparing=load.name):
                    self._pinned.worths.remember(item.name, item.worth, len(self.items))
                    closing += self.retire(item)
                self.counts.evictions += len(closing)
            self.finish(closing)
