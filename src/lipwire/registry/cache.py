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
    """The items of a registry, found by name and held within a budget: where a new item needs room,
    the least used of those that nobody uses now are evicted. Thread-safe, except for methods that
    say that the caller holds the lock (``lock``)."""

    def __init__(
        self,
        *,
        max_items: int | None,
        max_bytes: int | None,
        policy: Policy,
        clock: Callable[[], float],
        kind: str,
    ) -> None:
        """At most ``max_items`` items of ``max_bytes`` together are held; None is no limit.
        ``policy`` says which are evicted first: "lru" those not used for longest, "lfu" those used
        least often. ``clock`` gives seconds. ``kind`` names what is held in messages ("avatar").
        Nothing is checked: ``Registry`` does that."""
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
        """Return, without raising it, the Unavailable that calls are to raise once the cache is
        closed."""
        return Unavailable(f"{self.kind}s are being closed; ask another server")

    # -- users -----------------------------------------------------------------------------------

    def hit(self, name: str, suits: Callable[[V], bool] | None) -> Item[V] | None:
        """Return the item of ``name``, pinned for the caller, which counts as a use; None where
        none of that name is held, or where its value will not do. The caller has to call ``unpin``
        when it is done.

        ``suits(value)`` says whether the value held will do; it is called with the lock held. Where
        ``suits`` is None, a value will do until it is time to look at its version again
        (``Item.check_at_s``).
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
        """Count one more user of ``item``, and one more use, at time ``now`` of ``clock``. The item
        is not closed until ``unpin`` was called as often as this. The caller holds the lock."""
        self._pinned.pin(item)
        item.uses += 1
        item.last_used_s = now

    def unpin(self, item: Item[V]) -> None:
        """Count one user of ``item`` less. Where that was the last user of an item that was
        unloaded or replaced meanwhile, close the item. The caller must not hold the lock."""
        now = self.clock()
        with self.lock:
            item.last_used_s = now  # a use may last longer than the idle time
            closing = self.unpinned(item)
        if closing:
            self.finish(closing)

    def unpinned(self, item: Item[V]) -> list[Item[V]]:
        """Count one user of ``item`` less. Returns the items to be closed: this one where it was
        unloaded or replaced and that was its last user, else none.

        The caller holds the lock, and passes the returned items to ``finish`` when it has released
        the lock.
        """
        self._pinned.unpin(item)
        if item.pins or item.state is not State.RETIRED:
            return []
        self.retired -= 1
        return self._begin_closing(item)

    # -- coming and going ------------------------------------------------------------------------

    def put(self, item: Item[V], *, users: int, now: float) -> list[Item[V]]:
        """Hold ``item``, which was just loaded, in the place of any other of its name. Returns the
        items that the caller has to close because of this: the other item where nobody uses it,
        else none.

        ``users`` is how many pins ``item`` gets at once, one for each thread that waits for it;
        ``now`` is the time of ``clock``. What was reserved for its load counts as the item's from
        then on. The caller holds the lock, and passes the returned items to ``finish`` when it has
        released the lock.
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
        """Unload ``item``: it is no longer found by its name. Returns the items to be closed now:
        this one where nobody uses it; an empty list where it is in use, because its last ``unpin``
        closes it then, or where it was unloaded before.

        The caller holds the lock, and passes the returned items to ``finish`` when it has released
        the lock.
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
        """Close the items ``closing``, which ``put``, ``retire`` or ``unpinned`` returned, one
        after the other, and count the room of each as free when it is closed.

        The caller must not hold the lock: closing may take long.
        """
        for item in closing:
            self.close_value(item)
            with self.lock:
                self.budget.closed(item)
                self._room.notify_all()

    def close_value(self, item: Item[V]) -> None:
        """Call ``item.close()``; what it raises is logged and not passed on."""
        try:
            item.close()
        except Exception:
            _LOG.exception("%s %s could not be closed", self.kind, item.name)

    def wait_empty(self, until_s: float | None) -> bool:
        """Wait until all items are closed and all loads have ended, and return True. Returns False
        where some are left at time ``until_s``, in seconds of ``time.monotonic`` (None: no
        limit)."""
        with self.lock:
            while self.budget.items:
                left = None if until_s is None else until_s - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._room.wait(left)
        return True

    # -- room ------------------------------------------------------------------------------------

    def reserve(self, load: Load[V]) -> None:
        """Reserve room for what ``load`` is going to load, before it is loaded. Items that nobody
        uses are evicted where that is needed, and those that are being closed are waited for.

        The size of what will be loaded is taken to be what it was last time. Where it was never
        measured, the mean size of the items held is reserved, if there is room for that. Raises
        Overloaded where too much is in use, and Unavailable where there is no room and the cache
        was closed.
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
        """Reserve the bytes that ``item``, which ``load`` has loaded, really takes, in place of the
        size that ``reserve`` assumed, evicting others where that is needed, and remember that size
        for the next load of this name. May wait until other items are closed.

        Raises AvatarInvalid where the item is larger than the whole budget. Raises Overloaded where
        it does not fit beside what is in use, or Unavailable instead where the cache was closed.
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
        """Release the room that was reserved for ``load``, a load that failed. The caller holds the
        lock."""
        self.budget.give_back(load)
        self._room.notify_all()

    def take_idle(self, count: int) -> list[Item[V]]:
        """Unload up to ``count`` items that nobody uses, the least used first, and return them for
        the caller to close with ``finish``; an empty list where all are in use. The caller must not
        hold the lock."""
        closing: list[Item[V]] = []
        with self.lock:
            for _ in range(count):
                item = self._pinned.victim()
                if item is None:
                    break
                self._pinned.worths.remember(item.name, item.worth, len(self.items))
                closing += self.retire(item)
            self.counts.evictions += len(closing)
        return closing

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
