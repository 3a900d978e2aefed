"""Loaded things by name, within a budget, for many threads: opened avatars, networks on a device.

One lock guards all bookkeeping and is held for microseconds; loading, closing and looking at the
disk happen outside it, so a cold name delays nobody but those who ask for it.

    use ──hit──▶ pin ──▶ value ──▶ unpin                                  (``lookups``, ``shelf``)
     └──miss──▶ join the load of that name, or begin it ──▶ wait           (``loads``)

A value is closed by whoever sees its last pin go, and never before: what is evicted has no pins,
what is unloaded or replaced while in use is closed by its last user.
"""

import dataclasses
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from lipwire.avatars.holdings import Item, Loaded, RegistryStats
from lipwire.avatars.loads import Loads
from lipwire.avatars.lookups import Lookups
from lipwire.avatars.shelf import Shelf
from lipwire.domain import InvalidInput
from lipwire.domain.eviction import Policy

_OFTEN_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 20.0
"""How long the end of a ``with`` block waits for users; what they hold is closed by the last."""

V = TypeVar("V")


class Use(Generic[V]):
    """A value while it is in use; made by ``Registry.use``. A context manager, entered once."""

    __slots__ = ("_item", "_lookups", "_name", "_shelf", "_suits", "_timeout_s")

    def __init__(
        self,
        lookups: Lookups[V],
        shelf: Shelf[V],
        name: str,
        timeout_s: float | None,
        suits: Callable[[V], bool] | None,
    ) -> None:
        self._lookups = lookups
        self._shelf = shelf
        self._name = name
        self._timeout_s = timeout_s
        self._suits = suits
        self._item: Item[V] | None = None

    def __enter__(self) -> V:
        self._item = item = self._lookups.pinned(self._name, self._timeout_s, self._suits)
        return item.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        item, self._item = self._item, None
        if item is not None:
            self._shelf.unpin(item)


class Registry(Generic[V]):
    """Values by name: loaded once, pinned while used, given up within a budget. Thread-safe.

        registry = Registry(load, max_items=100, max_bytes=2 * 2**30)
        with registry.use("anna", timeout_s=2.0) as avatar:
            ...

    ``load(name)`` may take as long as it likes and may raise; ``version(name)`` is a cheap token
    that changes when what is loaded has changed (NotFound: it is gone). Both are called in other
    threads, never for one name twice at a time (``version`` may be), and must not use this
    registry.

    Counted against the budget is everything not closed yet, also what was unloaded while in use,
    and, before a value is there, what its load is expected to take: what it took last time, or the
    mean.
    """

    def __init__(
        self,
        load: Callable[[str], Loaded[V]],
        *,
        max_items: int | None = None,
        max_bytes: int | None = None,
        policy: Policy = "lfu",
        idle_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        failure_memory_s: float = 5.0,
        version: Callable[[str], object] | None = None,
        version_every_s: float = _OFTEN_S,
        loaders: int = 8,
        max_waiting_loads: int = 256,
        kind: str = "avatar",
    ) -> None:
        """``idle_s`` is for ``sweep``. The version of an item is looked at once in
        ``version_every_s``, when it is used. ``loaders`` loads run at a time, ``max_waiting_loads``
        wait for a turn, more are refused. ``kind`` names what is held in messages. Raises
        InvalidInput.
        """
        for label, number in (
            ("max_items", max_items),
            ("max_bytes", max_bytes),
            ("loaders", loaders),
            ("max_waiting_loads", max_waiting_loads),
        ):
            if number is not None and number < 1:
                raise InvalidInput(f"{label} is {number}; allowed are 1 and above")
        if policy not in ("lfu", "lru"):
            raise InvalidInput(f"eviction policy is {policy!r}; allowed are lfu and lru")
        self._idle_s = idle_s
        self._shelf: Shelf[V] = Shelf(
            max_items=max_items, max_bytes=max_bytes, policy=policy, clock=clock, kind=kind
        )
        self._loads = Loads(
            self._shelf,
            load,
            version=version,
            version_every_s=version_every_s,
            failure_memory_s=failure_memory_s,
            loaders=loaders,
            max_waiting=max_waiting_loads,
        )
        self._lookups = Lookups(
            self._shelf, self._loads, version=version, version_every_s=version_every_s
        )

    def use(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        suits: Callable[[V], bool] | None = None,
    ) -> Use[V]:
        """The value of ``name``, loaded where it is not, and kept while the block runs.

        ``suits`` is for whoever needs a certain version: a value that suits is given without a look
        at the disk, and in place of one that does not the newest is loaded, which need not suit
        either. It is called with the lock held, so it only compares.

        Waits for a load at most ``timeout_s``; the load goes on without the caller. On entering
        raises DeadlineExceeded, Overloaded (everything held is in use and the budget is full, or
        too many loads wait), Unavailable (closed), and what ``load`` raised; a failure is told
        again to whoever asks within ``failure_memory_s``, unless the version has changed.
        """
        return Use(self._lookups, self._shelf, name, timeout_s, suits)

    def load(self, name: str, *, timeout_s: float | None = None) -> bool:
        """Have ``name`` loaded and up to date; whether that took loading it.

        A remembered failure is forgotten first. Raises as ``use``; where only the newer version
        cannot be loaded, the one that was there stays.
        """
        with self._shelf.lock:
            self._loads.failures.forget(name)
            before = self._shelf.items.get(name)
            if before is not None:
                before.refused_version = None
        item = self._lookups.obtain(name, timeout_s, insist=True)
        self._shelf.unpin(item)
        return item is not before

    def unload(self, name: str) -> bool:
        """Give ``name`` up; whether it was there. In use, it is closed by its last user.

        A load under way is finished for those who wait for it and then given up, unless somebody
        asks for it in the meantime.
        """
        with self._shelf.lock:
            self._loads.failures.forget(name)
            load = self._loads.under_way.get(name)
            if load is not None:
                load.discard = True
            item = self._shelf.items.get(name)
            closing = [] if item is None else self._shelf.retire(item)
        self._shelf.finish(closing)
        return item is not None or load is not None

    def sweep(self) -> list[str]:
        """Close what nobody has used for ``idle_s``; the names of it. Call it now and then."""
        shelf = self._shelf
        now = shelf.clock()
        closing: list[Item[V]] = []
        with shelf.lock:
            self._loads.failures.sweep(now)
            if self._idle_s is not None:
                for item in list(shelf.items.values()):
                    if item.pins == 0 and now - item.last_used_s >= self._idle_s:
                        closing += shelf.retire(item)
                shelf.counts.expirations += len(closing)
        shelf.finish(closing)
        return [item.name for item in closing]

    def stats(self) -> RegistryStats:
        """This moment's numbers. Those of single items may be a moment newer than the sums."""
        shelf = self._shelf
        with shelf.lock:
            held = list(shelf.items.values())
            numbers = RegistryStats(
                items=(),
                loading=tuple(self._loads.under_way),
                failed=self._loads.failures.messages(),
                bytes=shelf.budget.bytes,
                max_bytes=shelf.budget.max_bytes,
                max_items=shelf.budget.max_items,
                retired=shelf.retired,
                **dataclasses.asdict(shelf.counts),
            )
        # Thousands of rows are made without the lock, which every hit needs.
        rows = sorted((item.stats() for item in held), key=lambda row: -row.last_used_s)
        return dataclasses.replace(numbers, items=tuple(rows))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse new users, close what is free, and wait for the rest; whether all is closed.

        What is still in use after ``timeout_s`` is closed by its last user, and a load still
        running is closed when it ends. May be called again, to go on waiting.
        """
        shelf = self._shelf
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with shelf.lock:
            shelf.closed = True
            closing = [gone for item in list(shelf.items.values()) for gone in shelf.retire(item)]
        shelf.finish(closing)
        return self._loads.close(until_s) and shelf.wait_empty(until_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(_CLOSE_TIMEOUT_S)
