"""How much room there is for loaded values, and which are evicted for another one.

Everything that is not closed yet is counted, whether it can still be found or not, and so is what
is reserved for loads under way. Nothing here waits, locks or closes: the registry does that, and
calls this under its lock.
"""

from typing import Final, Generic, TypeVar

from lipwire.domain import Overloaded
from lipwire.registry.eviction import PinnedItems
from lipwire.registry.items import Item, Load, State

_RETRY_AFTER_S: Final = 0.25

V = TypeVar("V")


class Budget(Generic[V]):
    """Counts how much a registry holds, and chooses what is evicted for more. Not thread-safe: the
    registry's lock guards it.

    At most ``max_items`` values of ``max_bytes`` together may be held; None is no limit. ``kind``
    names what is held in messages ("avatar").
    """

    def __init__(
        self, max_items: int | None, max_bytes: int | None, kind: str, held: PinnedItems[Item[V]]
    ) -> None:
        """``held`` has the items that may be evicted, with how often each is pinned."""
        self.max_items = max_items
        self.max_bytes: Final = max_bytes
        self._kind = kind
        self._held = held
        self.items = self.bytes = 0
        """All that is taken."""
        self._closing_items = self._closing_bytes = 0
        """Of it, what is being closed at this moment."""
        self._sizes: dict[str, int] = {}

    def learn(self, name: str, size: int) -> None:
        """Note that the value loaded as ``name`` takes ``size`` bytes: the next load of that name
        is expected to take as much (``known_size``)."""
        self._sizes[name] = size

    def known_size(self, name: str) -> int | None:
        """Return the bytes that ``learn`` last noted for ``name``; None where it noted none."""
        return self._sizes.get(name)

    def reserve(self, load: Load[V], items: int, size: int) -> bool:
        """Reserve room for ``items`` items of ``size`` bytes together for ``load``, a load under
        way, besides what was reserved for it before. Returns True where they fit now; otherwise
        nothing is reserved and False is returned.

        When the load has ended well, the reserved room counts as that of the item that was loaded.
        """
        over_items, over_bytes = self._lacking(items, size)
        if over_items > 0 or over_bytes > 0:
            return False
        load.reserved_items += items
        load.reserved_bytes += size
        self.items += items
        self.bytes += size
        return True

    def give_back(self, load: Load[V]) -> None:
        """Release all that was reserved for ``load``, a load that failed."""
        self.items -= load.reserved_items
        self.bytes -= load.reserved_bytes

    def will_fit(self, items: int, size: int) -> bool:
        """Return whether ``items`` more items of ``size`` bytes together will fit once all items
        that are being closed now are closed."""
        over_items, over_bytes = self._lacking(items, size)
        return over_items <= self._closing_items and over_bytes <= self._closing_bytes

    def victims(self, items: int, size: int, sparing: str) -> list[Item[V]]:
        """Return the items that the caller is to evict so that ``items`` more of ``size`` bytes
        together fit, the least used first.

        Only items that nobody uses are returned. The item named ``sparing``, which is to be
        replaced, is one of them only where the others are not enough. Raises Overloaded where all
        of them together are not enough; then nothing is to be evicted.
        """
        over_items, over_bytes = self._lacking(items, size)
        for spared in (sparing, None):
            left = [over_items - self._closing_items, over_bytes - self._closing_bytes]

            def enough(item: Item[V], left: list[int] = left) -> bool:
                left[0] -= 1
                left[1] -= item.bytes
                return left[0] <= 0 and left[1] <= 0

            def wanted(item: Item[V], spared: str | None = spared) -> bool:
                return item.name != spared

            found = self._held.victims(enough, wanted)
            if found is not None:
                return found
        raise self._full_error(sparing)

    def begin_closing(self, item: Item[V]) -> None:
        """Set the state of ``item`` to CLOSING. Its bytes still count until ``closed`` is called
        for it, but ``will_fit`` and ``victims`` count them as room that will soon be free."""
        item.state = State.CLOSING
        self._closing_items += 1
        self._closing_bytes += item.bytes

    def closed(self, item: Item[V]) -> None:
        """Count the room of ``item``, for which ``begin_closing`` was called, as free. To be called
        when the item has been closed."""
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
