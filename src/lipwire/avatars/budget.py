"""How much room there is for loaded values, and who has to go for another one.

Counted is everything that is not closed yet, held or not, and what is reserved for loads under way.
Nothing here waits, locks or closes: the registry does, and calls this under its lock.
"""

from typing import Final, Generic, TypeVar

from lipwire.avatars.holdings import Item, Load, State
from lipwire.domain import Overloaded
from lipwire.domain.eviction import Candidates

_RETRY_AFTER_S: Final = 0.25

V = TypeVar("V")


class Budget(Generic[V]):
    """Room for ``max_items`` values of ``max_bytes`` together; None is no limit. Not
    thread-safe."""

    def __init__(self, max_items: int | None, max_bytes: int | None, kind: str) -> None:
        self.max_items: Final = max_items
        self.max_bytes: Final = max_bytes
        self._kind = kind
        self.candidates: Candidates[Item[V]] = Candidates(_is_held)
        """What is held, the least worth first."""
        self.items = self.bytes = 0
        """All that is taken."""
        self._closing_items = self._closing_bytes = 0
        """Of it, what is being closed at this moment."""
        self._sizes: dict[str, int] = {}

    def learn(self, name: str, size: int) -> None:
        """Remember the measured size of what a name loads."""
        self._sizes[name] = size

    def known_size(self, name: str) -> int | None:
        return self._sizes.get(name)

    def reserve(self, load: Load[V], items: int, size: int) -> bool:
        """Reserve so much more for a load, where it fits at once. What is reserved is the item's
        when the load has ended well."""
        over_items, over_bytes = self._lacking(items, size)
        if over_items > 0 or over_bytes > 0:
            return False
        load.reserved_items += items
        load.reserved_bytes += size
        self.items += items
        self.bytes += size
        return True

    def give_back(self, load: Load[V]) -> None:
        """The load came to nothing."""
        self.items -= load.reserved_items
        self.bytes -= load.reserved_bytes

    def will_fit(self, items: int, size: int) -> bool:
        """Whether so much fits once what is being closed is closed."""
        over_items, over_bytes = self._lacking(items, size)
        return over_items <= self._closing_items and over_bytes <= self._closing_bytes

    def victims(self, items: int, size: int, sparing: str) -> list[Item[V]]:
        """What to evict so that so much fits; ``sparing``, which is to be replaced, comes last.

        Raises Overloaded, and nothing is to be evicted, where all that is free were not enough.
        """
        over_items, over_bytes = self._lacking(items, size)
        for spared in (sparing, None):
            left = [over_items - self._closing_items, over_bytes - self._closing_bytes]

            def enough(item: Item[V], left: list[int] = left) -> bool:
                left[0] -= 1
                left[1] -= item.bytes
                return left[0] <= 0 and left[1] <= 0

            def wanted(item: Item[V], spared: str | None = spared) -> bool:
                return item.pins == 0 and item.name != spared

            found = self.candidates.choose(wanted, enough)
            if found is not None:
                return found
        raise self._full_error(sparing)

    def begin_closing(self, item: Item[V]) -> None:
        item.state = State.CLOSING
        self._closing_items += 1
        self._closing_bytes += item.bytes

    def closed(self, item: Item[V]) -> None:
        self._closing_items -= 1
        self._closing_bytes -= item.bytes
        self.items -= 1
        self.bytes -= item.bytes

    def _lacking(self, items: int, size: int) -> tuple[int, int]:
        """How many items and bytes too many there would be."""
        over_items = 0 if self.max_items is None else self.items + items - self.max_items
        over_bytes = 0 if self.max_bytes is None else self.bytes + size - self.max_bytes
        return max(over_items, 0), max(over_bytes, 0)

    def _full_error(self, name: str) -> Overloaded:
        limits = [] if self.max_items is None else [f"{self.max_items} {self._kind}s"]
        if self.max_bytes is not None:
            limits.append(f"{self.max_bytes:,} bytes")
        return Overloaded(
            f"no room to load {self._kind} {name}: {self.items} {self._kind}s ({self.bytes:,}"
            f" bytes) are in use or being loaded; allowed are {' and '.join(limits)}",
            retry_after_s=_RETRY_AFTER_S,
        )


def _is_held(item: Item[V]) -> bool:
    return item.state is State.HELD
