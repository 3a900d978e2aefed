"""Which loaded item to evict first: the least recently used, or the least often used with ageing;
never one that is pinned, which is in use.

Every item carries a *worth*. A use raises it and nothing lowers it, and the worths of two items may
be compared at any time, so that no item has to be touched for others to age:

- ``lru``: the number of the use, counted over all items.
- ``lfu``: the logarithm of a count in which every use weighs half as much for each half-life that
  has passed since. Written as ``log2(sum of 2**time of use)``, time in half-lives, it need not be
  worked out anew as time goes by. Time is counted in uses, and a half-life is USES_A_HALF_LIFE uses
  for each item held: what was popular an hour ago is evicted once others are asked for, a newcomer
  is worth as much as something old that is asked for about once a half-life, and an idle night
  changes nothing.

Counts outlive an eviction (``remembered``), so that something that is loaded again and again is not
a newcomer each time.
"""

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, Literal, Protocol, TypeVar

Policy = Literal["lfu", "lru"]

NEVER_USED: Final = -math.inf
"""The worth of what nobody has asked for."""

USES_A_HALF_LIFE: Final = 16
"""For each item held. Hit rates with room for 40 names, of 1,100 under a Zipf law of exponent 0.9,
and of 200 whose popularity changes once: 35 and 57 % for 1, 44 and 63 % for 8, 46 and 64 % for 16,
47 and 61 % for 128; counts that never age give 42 and 52 %, lru 31 and 54 %."""

_REMEMBERED_FOR_EACH: Final = 8
_REMEMBERED_AT_LEAST: Final = 1024


class Worthy(Protocol):
    """Something that has a ``worth``, a number that rises with each use; what has the lowest one is
    evicted first."""

    worth: float


W = TypeVar("W", bound=Worthy)


class Worths:
    """Computes the ``worth`` of items, a number that says how much an item is used, each time that
    one is used. Not thread-safe."""

    __slots__ = ("_aged", "_now", "_past", "_step")

    def __init__(self, policy: Policy) -> None:
        """``policy`` is what makes an item worth more: "lru" how lately it was used; "lfu" how
        often, where old uses count less and less."""
        self._aged = policy == "lfu"
        self._now = 0.0
        self._past: OrderedDict[str, float] = OrderedDict()
        self._step = 1.0

    def set_item_count(self, items: int) -> None:
        """Set how many items are held. With "lfu" this says how fast old uses count less: a use
        counts half as much after 16 * ``items`` further uses of any items. With "lru" nothing is
        done."""
        if self._aged:
            self._step = 1.0 / (USES_A_HALF_LIFE * max(items, 1))

    def after_use(self, worth: float) -> float:
        """Return the new ``worth`` of an item whose worth was ``worth`` and that is used now: a
        number that says how much it is used, higher than before. Of two items the one with the
        lower worth is evicted first."""
        self._now = now = self._now + self._step
        if not self._aged or worth == NEVER_USED:
            return now
        # log2(2**worth + 2**now) without leaving the range of floats.
        if worth > now:
            return worth + math.log2(1.0 + 2.0 ** (now - worth))
        return now + math.log2(1.0 + 2.0 ** (worth - now))

    def remember(self, name: str, worth: float, items: int) -> None:
        """Keep the ``worth`` of the item ``name``, which is being evicted, so that ``remembered``
        returns it when it is loaded again. With "lru" nothing is kept.

        ``items`` is how many items are held: the latest 8 * ``items`` worths are kept, 1024 at
        least.
        """
        if not self._aged:
            return
        self._past[name] = worth
        self._past.move_to_end(name)
        while len(self._past) > max(_REMEMBERED_AT_LEAST, _REMEMBERED_FOR_EACH * items):
            self._past.popitem(last=False)

    def remembered(self, name: str) -> float:
        """Return the ``worth`` that item ``name`` had when it was evicted, and forget it;
        NEVER_USED, minus infinity, where none is kept."""
        return self._past.pop(name, NEVER_USED)


class Candidates(Generic[W]):
    """Items that may be evicted, in order of their ``worth``, lowest first. Not thread-safe.

    The ``worth`` of an item may rise, at no cost, while it is held here, and must not fall. A heap
    holds (worth when it was written down, number of the item): an entry that is out of date stands
    too far in front, never too far back, so the lowest item is found by writing such entries down
    again until one is right.
    """

    __slots__ = ("_heap", "_items", "_numbers", "_serial")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._items: dict[int, W] = {}
        self._numbers: dict[W, int] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[W]:
        return iter(self._numbers)

    def add(self, item: W) -> None:
        """Add ``item``. Does nothing where it was added already."""
        if item not in self._numbers:
            self._serial += 1
            self._items[self._serial] = item
            self._numbers[item] = self._serial
            heapq.heappush(self._heap, (item.worth, self._serial))

    def discard(self, item: W) -> None:
        """Remove ``item``. Does nothing where it was not added."""
        number = self._numbers.pop(item, None)
        if number is not None:
            del self._items[number]
            if len(self._heap) > 2 * len(self._items) + 64:  # most entries are of items gone
                self._heap = [entry for entry in self._heap if entry[1] in self._items]
                heapq.heapify(self._heap)

    def choose(self, wanted: Callable[[W], bool], enough: Callable[[W], bool]) -> list[W] | None:
        """Return the items to evict: those for which ``wanted(item)`` is true, the lowest ``worth``
        first, up to and including the first for which ``enough(item)`` is true. Returns None where
        ``enough`` is true for none of them.

        ``enough`` is called once for each of these items, in that order, so that it can keep a sum.
        The items stay candidates.
        """
        seen: list[tuple[float, int]] = []
        chosen: list[W] = []
        found = False
        while self._heap and not found:
            worth, number = heapq.heappop(self._heap)
            item = self._items.get(number)
            if item is None:
                continue
            if item.worth > worth:
                heapq.heappush(self._heap, (item.worth, number))
                continue
            seen.append((worth, number))
            if wanted(item):
                chosen.append(item)
                found = enough(item)
        for entry in seen:
            heapq.heappush(self._heap, entry)
        return chosen if found else None


class Pinnable(Worthy, Protocol):
    """Something that may be evicted: it has a ``worth``, a number that rises with each use, and
    ``pins``, how many users it has at this moment. With any it is not evicted."""

    pins: int
    """Users at this moment; an item with any is not given up."""


P = TypeVar("P", bound=Pinnable)


class PinnedItems(Generic[P]):
    """The items that an owner holds and may evict, with how often each is pinned. Not thread-safe:
    the owner's lock guards it.

    An owner is, for example, a registry. It knows how large an item is, and how it is made and
    freed; that is not done here.
    """

    def __init__(self, policy: Policy) -> None:
        """``policy`` says which items are evicted first: "lru" those not used for longest, "lfu"
        those used least often, where old uses count less and less."""
        self.worths: Final = Worths(policy)
        self._held: Candidates[P] = Candidates()
        self._removed: deque[P] = deque()
        self.pins = 0
        """Of all items, held or not."""

    def __len__(self) -> int:
        """Items held."""
        return len(self._held)

    def __iter__(self) -> Iterator[P]:
        return iter(self._held)

    def add(self, item: P) -> None:
        """Hold ``item``: from now on it may be evicted while it has no pins. Does nothing where it
        is held already."""
        self._held.add(item)
        self.worths.set_item_count(len(self._held))

    def discard(self, item: P) -> None:
        """Hold ``item`` no more. Does nothing where it is not held."""
        self._held.discard(item)
        self.worths.set_item_count(len(self._held))

    def use(self, item: P) -> None:
        """Count a use of ``item``: its ``worth`` rises, so that it is evicted later."""
        item.worth = self.worths.after_use(item.worth)

    def pin(self, item: P) -> None:
        """Count a use of ``item`` and pin it: it is not evicted until ``unpin`` was called for it
        as often as this."""
        item.pins += 1
        self.pins += 1
        self.use(item)

    def unpin(self, item: P) -> None:
        """Remove one of the pins of ``item``."""
        item.pins -= 1
        self.pins -= 1

    def victims(
        self, enough: Callable[[P], bool], wanted: Callable[[P], bool] = lambda _: True
    ) -> list[P] | None:
        """Return items to evict, the least used first (those with the lowest ``worth``): items
        without pins for which ``wanted(item)`` is true.

        ``enough(item)`` is called once with each of these in turn; the first for which it is true
        is the last that is returned. Returns None where ``enough`` is true for none of them. The
        items stay held until the caller calls ``discard``.
        """
        return self._held.choose(lambda item: not item.pins and wanted(item), enough)

    def victim(self, below: float = float("inf")) -> P | None:
        """Return the one item to evict first: the least used (with the lowest ``worth``) of those
        without pins. None where none of them has a ``worth`` lower than ``below``. The item stays
        held."""
        found = self.victims(lambda _: True, lambda item: item.worth < below)
        return None if found is None else found[0]

    def remove_later(self, item: P) -> None:
        """Put ``item`` aside to be removed: ``removed`` returns it once it has no pins. Nothing
        else is changed. Takes no lock and needs none, so that it may be called during a garbage
        collection, in any thread."""
        self._removed.append(item)

    def removed(self) -> list[P]:
        """Return the items that ``remove_later`` was called for and that have no pins, each once.
        Those that are pinned are returned by a later call."""
        idle: list[P] = []
        for _ in range(len(self._removed)):
            item = self._removed.popleft()
            if item.pins:
                self._removed.append(item)
            else:
                idle.append(item)
        return idle
