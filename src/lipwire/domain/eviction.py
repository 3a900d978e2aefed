"""Which loaded item to give up first: the least recently used, or the least often used with ageing.

Every item carries a *worth*. A use raises it and nothing lowers it, and the worths of two items may
be compared at any time, so that no item has to be touched for others to age:

- ``lru``: the number of the use, counted over all items.
- ``lfu``: the logarithm of a count in which every use weighs half as much for each half-life that
  has passed since. Written as ``log2(sum of 2**time of use)``, time in half-lives, it need not be
  worked out anew as time goes by. Time is counted in uses, and a half-life is USES_A_HALF_LIFE uses
  for each item held: what was popular an hour ago leaves once others are asked for, a newcomer is
  worth as much as something old that is asked for about once a half-life, and an idle night changes
  nothing.

Counts outlive an eviction (``remembered``), so that something that comes back again and again is
not a newcomer each time.
"""

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable
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
    """What can be ranked."""

    worth: float


W = TypeVar("W", bound=Worthy)


class Worths:
    """Gives out worths. Not thread-safe."""

    __slots__ = ("_aged", "_now", "_past", "_step")

    def __init__(self, policy: Policy) -> None:
        self._aged = policy == "lfu"
        self._now = 0.0
        self._past: OrderedDict[str, float] = OrderedDict()
        self._step = 1.0

    def holding(self, items: int) -> None:
        """Say how many items are held: it sets the pace of ageing."""
        if self._aged:
            self._step = 1.0 / (USES_A_HALF_LIFE * max(items, 1))

    def after_use(self, worth: float) -> float:
        """The worth after one more use, now."""
        self._now = now = self._now + self._step
        if not self._aged or worth == NEVER_USED:
            return now
        # log2(2**worth + 2**now) without leaving the range of floats.
        if worth > now:
            return worth + math.log2(1.0 + 2.0 ** (now - worth))
        return now + math.log2(1.0 + 2.0 ** (worth - now))

    def remember(self, name: str, worth: float, items: int) -> None:
        """Keep the worth of something that is given up; ``items`` are those held."""
        if not self._aged:
            return
        self._past[name] = worth
        self._past.move_to_end(name)
        while len(self._past) > max(_REMEMBERED_AT_LEAST, _REMEMBERED_FOR_EACH * items):
            self._past.popitem(last=False)

    def remembered(self, name: str) -> float:
        """The worth ``name`` had when it was given up, or NEVER_USED. Forgets it."""
        return self._past.pop(name, NEVER_USED)


class Candidates(Generic[W]):
    """Items by worth, lowest first. Not thread-safe.

    A heap of (worth when it was written down, item). Since worths only rise, an entry that is out
    of date stands too far in front, never too far back: the lowest is found by writing such entries
    down again until one is true. A use therefore costs nothing here.
    """

    __slots__ = ("_heap", "_serial", "_there")

    def __init__(self, there: Callable[[W], bool]) -> None:
        """``there`` says whether an item is still held; entries of others are thrown away."""
        self._heap: list[tuple[float, int, W]] = []
        self._serial = 0
        self._there = there

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, item: W) -> None:
        """Take in an item that is held and not in here yet."""
        self._serial += 1  # items themselves have no order
        heapq.heappush(self._heap, (item.worth, self._serial, item))

    def choose(self, wanted: Callable[[W], bool], enough: Callable[[W], bool]) -> list[W] | None:
        """Items of lowest worth among those ``wanted``, until ``enough`` says so of the last one.

        None where all of them together are not enough. The items stay in here.
        """
        seen: list[tuple[float, int, W]] = []
        chosen: list[W] = []
        found = False
        while self._heap and not found:
            worth, serial, item = heapq.heappop(self._heap)
            if not self._there(item):
                continue
            if item.worth > worth:
                heapq.heappush(self._heap, (item.worth, serial, item))
                continue
            seen.append((worth, serial, item))
            if wanted(item):
                chosen.append(item)
                found = enough(item)
        for entry in seen:
            heapq.heappush(self._heap, entry)
        return chosen if found else None

    def tidy(self, held: int) -> None:
        """Throw away entries of items that are gone, when they are most of what is in here."""
        if len(self._heap) > 2 * held + 64:
            self._heap = [entry for entry in self._heap if self._there(entry[2])]
            heapq.heapify(self._heap)
