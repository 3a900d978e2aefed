"""What a registry holds and reports: loaded values, loads under way, and the numbers about them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from lipwire.registry.eviction import NEVER_USED

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V]):
    """What the ``load`` function of a registry returns."""

    value: V
    bytes: int
    """Memory it takes, measured, at least 0."""
    close: Callable[[], None]
    """Called once, after the last user is done."""


class State(Enum):
    """How an item can be found, and whether it is being closed."""

    HELD = "held"
    """Found by its name."""
    RETIRED = "retired"
    """Unloaded or replaced while in use: closed by its last user."""
    CLOSING = "closing"
    """Nobody uses it; it is closed or being closed."""


class Item(Generic[V]):
    """A loaded value in a registry.

    All fields but name, value, bytes and close are read and written under the registry's lock.
    """

    __slots__ = (
        "bytes",
        "check_at_s",
        "close",
        "gone",
        "last_used_s",
        "load_s",
        "loaded_at_s",
        "name",
        "pins",
        "refused_version",
        "replacement_error",
        "state",
        "uses",
        "value",
        "version",
        "worth",
    )

    def __init__(self, name: str, loaded: Loaded[V], version: object, load_s: float) -> None:
        """``loaded`` is what loading ``name`` returned, which took ``load_s`` seconds; ``version``
        was looked up before."""
        self.name = name
        self.value = loaded.value
        self.bytes = loaded.bytes
        self.close = loaded.close
        self.version = version
        self.load_s = load_s
        self.state = State.HELD
        self.pins = 0
        self.uses = 0
        self.worth = NEVER_USED
        self.loaded_at_s = self.last_used_s = self.check_at_s = 0.0
        self.gone = False
        """Nothing was there when it was looked for last."""
        self.refused_version: object = None
        """A version that could not be loaded in place of this one."""
        self.replacement_error: str | None = None

    def stats(self) -> "ItemStats":
        """Return the item's numbers at this moment; without the lock they may be of slightly
        different moments."""
        return ItemStats(
            name=self.name,
            bytes=self.bytes,
            uses=self.uses,
            pins=self.pins,
            loaded_at_s=self.loaded_at_s,
            last_used_s=self.last_used_s,
            load_s=self.load_s,
            stale=self.replacement_error,
        )


class Load(Generic[V]):
    """A load under way, with the number of threads that wait for it.

    The value is pinned for each of them when it is there.
    """

    __slots__ = (
        "discard",
        "done",
        "error",
        "item",
        "name",
        "reserved_bytes",
        "reserved_items",
        "waiters",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.done = threading.Event()
        self.item: Item[V] | None = None
        self.error: BaseException | None = None
        self.waiters = 0
        self.discard = False
        """Unloaded before it came: given to those who wait and not kept."""
        self.reserved_items = 0
        self.reserved_bytes = 0


@dataclass(frozen=True, slots=True)
class ItemStats:
    """Numbers about one item; times are of the registry's clock, in seconds."""

    name: str
    bytes: int
    uses: int
    pins: int
    """Users at this moment; an item with any is not evicted."""
    loaded_at_s: float
    last_used_s: float
    load_s: float
    """How long loading took."""
    stale: str | None
    """Why the package's newer form could not be loaded; None where it is up to date."""


@dataclass(slots=True)
class Counts:
    """How often each thing happened since the registry was made; see ``RegistryStats``."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    evictions: int = 0
    expirations: int = 0
    swaps: int = 0
    failures: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class RegistryStats:
    """Numbers about a registry at one moment. Times are of its clock, in seconds."""

    items: tuple[ItemStats, ...]
    """What is held, most recently used first."""
    loading: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    """(name, message) of what failed to load and is not tried again yet."""
    bytes: int
    """Measured bytes of everything that is not closed, with what is reserved for loads under
    way."""
    max_bytes: int | None
    max_items: int | None
    retired: int
    """Unloaded or replaced, and still in use."""
    hits: int
    misses: int
    loads: int
    evictions: int
    expirations: int
    """Closed because nobody used them for the idle time."""
    swaps: int
    """Replaced by a newer version."""
    failures: int
    refusals: int
    """Loads refused because everything was in use and the budget full, or too many waited."""
