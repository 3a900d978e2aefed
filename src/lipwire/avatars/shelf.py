"""What a registry holds: values by name, pinned while they are used, and the room that they take.

One lock guards all bookkeeping of a registry and is held for microseconds; closing values happens
outside it. Methods said to be *locked* are called with the lock held, the others without.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar

from lipwire.avatars.budget import Budget
from lipwire.avatars.holdings import Counts, Item, Load, State
from lipwire.domain import AvatarInvalid, Overloaded, Unavailable
from lipwire.domain.eviction import NEVER_USED, Policy, Worths

_LOG: Final = logging.getLogger(__name__)

V = TypeVar("V")


class Shelf(Generic[V]):
    """Items within a budget: the least worth of those that nobody uses go first. Thread-safe."""

    def __init__(
        self,
        *,
        max_items: int | None,
        max_bytes: int | None,
        policy: Policy,
        clock: Callable[[], float],
        kind: str,
    ) -> None:
        """What is passed has been checked. ``kind`` names what is held in messages."""
        self.kind: Final = kind
        self.clock: Final = clock
        self.lock: Final = threading.Lock()
        self.items: Final[dict[str, Item[V]]] = {}
        """What is found by its name."""
        self.budget: Final[Budget[V]] = Budget(max_items, max_bytes, kind)
        self.counts: Final = Counts()
        self.closed = False
        self.retired = 0
        """Unloaded or replaced, and still in use."""
        self._worths = Worths(policy)
        self._held_bytes = 0
        self._room = threading.Condition(self.lock)
        """Told whenever something has been closed."""

    def closed_error(self) -> Unavailable:
        return Unavailable(f"{self.kind}s are being closed; ask another server")

    # -- users -----------------------------------------------------------------------------------

    def pin(self, item: Item[V], now: float) -> None:
        """Locked: one more user."""
        item.pins += 1
        item.uses += 1
        item.last_used_s = now
        item.worth = self._worths.after_use(item.worth)

    def unpin(self, item: Item[V]) -> None:
        """A user is done; the last one closes what was let go of meanwhile."""
        now = self.clock()
        with self.lock:
            item.last_used_s = now  # a use may last longer than the idle time
            closing = self.unpinned(item)
        if closing:
            self.finish(closing)

    def unpinned(self, item: Item[V]) -> list[Item[V]]:
        """Locked: one user less; what is to be closed now, which ``finish`` does."""
        item.pins -= 1
        if item.pins or item.state is not State.RETIRED:
            return []
        self.retired -= 1
        return self._begin_closing(item)

    # -- coming and going ------------------------------------------------------------------------

    def put(self, item: Item[V], *, users: int, now: float) -> list[Item[V]]:
        """Locked: have ``item`` found by its name, in place of what was; what is to be closed.

        What was reserved for its load is the item's from here on: the sums stay as they are.
        """
        old = self.items.get(item.name)
        item.worth = self._worths.remembered(item.name) if old is None else old.worth
        closing = [] if old is None else self.retire(old)
        self.counts.swaps += old is not None
        item.loaded_at_s = item.last_used_s = now
        self.items[item.name] = item
        self._held_bytes += item.bytes
        self._worths.holding(len(self.items))
        for _ in range(users):
            self.pin(item, now)
        if item.worth == NEVER_USED:
            item.worth = self._worths.after_use(item.worth)
        self.budget.candidates.add(item)
        return closing

    def retire(self, item: Item[V]) -> list[Item[V]]:
        """Locked: let an item's name go; what is to be closed now, which ``finish`` does."""
        if item.state is not State.HELD:
            return []
        if self.items.get(item.name) is item:
            del self.items[item.name]
        self._held_bytes -= item.bytes
        self._worths.holding(len(self.items))
        self.budget.candidates.tidy(len(self.items))
        item.state = State.RETIRED
        if item.pins:
            self.retired += 1
            return []
        return self._begin_closing(item)

    def _begin_closing(self, item: Item[V]) -> list[Item[V]]:
        self.budget.begin_closing(item)
        return [item]

    def finish(self, closing: Iterable[Item[V]]) -> None:
        """Close, without the lock, and only then say that there is room."""
        for item in closing:
            self.close_value(item)
            with self.lock:
                self.budget.closed(item)
                self._room.notify_all()

    def close_value(self, item: Item[V]) -> None:
        try:
            item.close()
        except Exception:
            _LOG.exception("%s %s could not be closed", self.kind, item.name)

    def wait_empty(self, until_s: float | None) -> bool:
        """Wait until all is closed, at most to that time of ``time.monotonic``."""
        with self.lock:
            while self.budget.items:
                left = None if until_s is None else until_s - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._room.wait(left)
        return True

    # -- room ------------------------------------------------------------------------------------

    def reserve(self, load: Load[V]) -> None:
        """Make room for an item and for what it will take, before it is there. Raises Overloaded.

        Where it was never measured that is guessed, and a guess refuses nobody.
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
        """Make room for what the item takes. Raises AvatarInvalid where it never fits, Overloaded
        where it does not now."""
        if self.budget.max_bytes is not None and item.bytes > self.budget.max_bytes:
            raise AvatarInvalid(
                f"{self.kind} {load.name} takes {item.bytes:,} bytes of memory; allowed are"
                f" {self.budget.max_bytes:,} for all together"
            )
        with self.lock:
            self.budget.learn(load.name, item.bytes)
        self._make_room(load, items=0, size=item.bytes - load.reserved_bytes)

    def give_back(self, load: Load[V]) -> None:
        """Locked: the load came to nothing."""
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
                    self._worths.remember(item.name, item.worth, len(self.items))
                    closing += self.retire(item)
                self.counts.evictions += len(closing)
            self.finish(closing)
