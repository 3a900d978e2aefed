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
    """What a registry's ``load`` function returns: the ``value``; how many ``bytes`` of memory it
    takes, 0 or more; and ``close``, which is called once, without arguments, when the value is
    unloaded and its last user is done."""

    value: V
    bytes: int
    """Memory it takes, measured, at least 0."""
    close: Callable[[], None]
    """Called once, after the last user is done."""


class State(Enum):
    """Whether an item is held (found by its name), retired (unloaded or replaced while in use: its
    last user closes it), or closing (nobody uses it, and it is being closed or was closed)."""

    HELD = "held"
    """Found by its name."""
    RETIRED = "retired"
    """Unloaded or replaced while in use: closed by its last user."""
    CLOSING = "closing"
    """Nobody uses it; it is closed or being closed."""


class Item(Generic[V]):
    """A loaded value in a registry, with its users and uses.

    ``name``, ``value``, ``bytes`` and ``close`` never change; all other fields are read and written
    under the registry's lock.
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
        """``loaded`` is what the registry's ``load`` returned for ``name``, after ``load_s``
        seconds. ``version`` is what its ``version`` function returned before that; None where it
        has none."""
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
        """Return numbers about the item. Where the caller does not hold the registry's lock, they
        may be from slightly different moments."""
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
    """A load that threads wait for, and its result: ``done`` is set when it has ended, with
    ``item`` or with ``error`` (the other is None). When it ends well the item is pinned once for
    each of the ``waiters``, the number of threads that wait."""

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
    """Numbers about one item of a registry. Times are in seconds of the registry's clock.

    ``bytes`` is how much memory it takes. ``uses`` is how often it was used in all, ``pins`` how
    many users it has now; with any it is not evicted. ``loaded_at_s`` and ``last_used_s`` are when
    it was loaded and last used, ``load_s`` is how long loading took. ``stale`` is why its newer
    version could not be loaded; None where it is up to date.
    """

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
    """How often each thing has happened since a registry was made: uses of what was there
    (``hits``) and of what was not (``misses``), ``loads`` that ended well, ``evictions`` to make
    room, ``expirations`` of what nobody used for the idle time, ``swaps`` for newer versions,
    ``failures`` of loads, and ``refusals`` of loads for want of room."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    evictions: int = 0
    expirations: int = 0
    swaps: int = 0
    failures: int = 0
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class RegistryTotals:
    """Sums of a registry at one moment. ``items`` is how many values are held, ``bytes`` the memory
    that all takes that is not closed, ``max_items`` the limit (None: no limit). The other fields
    are counts since the registry was made, as in ``RegistryStats``."""

    items: int
    bytes: int
    max_items: int | None
    hits: int
    misses: int
    loads: int
    evictions: int
    expirations: int
    swaps: int
    failures: int
    refusals: int


@dataclass(frozen=True, slots=True)
class RegistryStats:
    """Numbers about a registry at one moment; counts are since it was made.

    ``items`` are the values held, most recently used first; ``loading`` are names; ``failed`` has
    (name, message) of what failed to load a moment ago. ``bytes`` is what all takes that is not
    closed, loads under way included; ``max_bytes`` and ``max_items`` are the limits, None where
    there is none. ``retired`` values were unloaded or replaced and are still in use.

    ``hits`` and ``misses`` count uses of what was there and of what had to be loaded, ``loads``
    what was loaded, ``evictions`` what was closed to make room, ``expirations`` what was closed
    because nobody used it for the idle time, ``swaps`` what was replaced by a newer version,
    ``failures`` loads that failed, and ``refusals`` those refused because the budget was full with
    what is in use, or too many waited.
    """

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
