"""Loaded things by name, within a budget, for many threads: opened avatars, networks on a device.

One lock guards all bookkeeping and is held for microseconds; loading, closing and looking at the
disk happen outside it, so a name that has to be loaded delays only those who ask for it.

    use ──hit──▶ pin ──▶ value ──▶ unpin                                   (``cache``)
     └──miss, or a look at the disk is due                                 (``lookups``)
              └──▶ join the load of that name, or begin it ──▶ wait        (``loads``)

A value is closed only when it has no pins: an evicted one has none, and one that is unloaded or
replaced while in use is closed by its last user.
"""

import dataclasses
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from lipwire.domain import InvalidInput
from lipwire.registry.cache import Cache
from lipwire.registry.eviction import Policy
from lipwire.registry.items import Item, Loaded, RegistryStats, RegistryTotals
from lipwire.registry.loads import Loads
from lipwire.registry.lookups import Lookups

LOADERS: Final = 8
MAX_WAITING_LOADS: Final = 256
"""What a registry has unless it is told otherwise."""
_OFTEN_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 20.0
"""How long the end of a ``with`` block waits for users; what they hold is closed by the last."""

V = TypeVar("V")


class Use(Generic[V]):
    """Context manager that ``Registry.use`` returns: entering gives the value, which is loaded
    where it is not held, and leaving the block counts one user less. To be entered once. Entering
    raises the errors that ``Registry.use`` names."""

    __slots__ = ("_cache", "_item", "_lookups", "_name", "_suits", "_timeout_s")

    def __init__(
        self,
        lookups: Lookups[V],
        cache: Cache[V],
        name: str,
        timeout_s: float | None,
        suits: Callable[[V], bool] | None,
    ) -> None:
        self._lookups = lookups
        self._cache = cache
        self._name = name
        self._timeout_s = timeout_s
        self._suits = suits
        self._item: Item[V] | None = None

    def __enter__(self) -> V:
        item = self._cache.hit(self._name, self._suits)
        if item is None:
            insist = self._suits is not None
            item = self._lookups.obtain(self._name, self._timeout_s, insist=insist)
        self._item = item
        return item.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        item, self._item = self._item, None
        if item is not None:
            self._cache.unpin(item)


class Registry(Generic[V]):
    """Values by name: each loaded once, pinned while in use, evicted within a budget. Thread-safe.

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
        refresh: Callable[[str], object] | None = None,
        version_every_s: float = _OFTEN_S,
        loaders: int = LOADERS,
        max_waiting_loads: int = MAX_WAITING_LOADS,
        kind: str = "avatar",
    ) -> None:
        """``load(name)`` loads a value. At most ``max_items`` values of ``max_bytes`` together are
        held; None is no limit. ``policy`` is how the values to evict are chosen: "lfu", the least
        often used, or "lru", the least recently used. ``sweep`` closes values that were not used
        for ``idle_s`` seconds (None: none). A failed load is raised again for ``failure_memory_s``
        seconds, two at most where the disk failed (StorageFailed).

        ``version(name)`` returns the version of what would be loaded now. It is called when a value
        is used, once in ``version_every_s`` seconds or where the newest version is needed (in
        ``load``, and in ``use`` with ``suits``), and a value of another version is replaced;
        without it values are never replaced. ``refresh(name)`` is called before ``version`` where
        the newest version is needed, so that ``version`` can find out about it; it may be slow.
        ``loaders`` loads run at a time, and up to ``max_waiting_loads`` wait for a turn; more are
        refused. ``clock`` gives seconds; ``kind`` names what is held in messages. Raises
        InvalidInput for numbers out of range.
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
        self._cache: Cache[V] = Cache(
            max_items=max_items, max_bytes=max_bytes, policy=policy, clock=clock, kind=kind
        )
        self._loads = Loads(
            self._cache,
            load,
            version=version,
            version_every_s=version_every_s,
            failure_memory_s=failure_memory_s,
            loaders=loaders,
            max_waiting=max_waiting_loads,
        )
        self._lookups = Lookups(
            self._cache,
            self._loads,
            version=version,
            version_every_s=version_every_s,
            refresh=refresh,
        )

    def use(
        self,
        name: str,
        *,
        timeout_s: float | None = None,
        suits: Callable[[V], bool] | None = None,
    ) -> Use[V]:
        """Return a context manager that gives the value of ``name``, loaded where it is not held,
        and keeps it for the block.

        ``suits(value)`` is for callers that need a certain version. A held value for which it is
        true is given without a look at its version; otherwise the newest is given, loaded if need
        be, whether it suits or not. ``suits`` is called with a lock held, so it may only compare.

        Waits for a load at most ``timeout_s`` seconds (None: without limit); the load goes on
        without the caller. On entering, the context manager raises DeadlineExceeded, Overloaded
        (everything held is in use and the budget is full, or too many loads wait), Unavailable
        (closed), and what the function ``load`` raised. A failure is raised again for whoever asks
        within ``failure_memory_s`` (two seconds at most for StorageFailed), unless the version has
        changed.
        """
        return Use(self._lookups, self._cache, name, timeout_s, suits)

    def load(self, name: str, *, timeout_s: float | None = None) -> bool:
        """Have ``name`` loaded and up to date. Returns True where a value was loaded, False where
        the one that was held before is still the newest.

        A remembered failure is forgotten first. Waits at most ``timeout_s`` seconds (None: without
        limit). Raises DeadlineExceeded after that, Overloaded (everything held is in use and the
        budget is full, or too many loads wait), Unavailable (closed), and what the function
        ``load`` raised. Where there is a newer version and it cannot be loaded, the value that was
        held stays.
        """
        with self._cache.lock:
            self._loads.failures.forget(name)
            before = self._cache.items.get(name)
            if before is not None:
                before.refused_version = None
        item = self._lookups.obtain(name, timeout_s, insist=True)
        self._cache.unpin(item)
        return item is not before

    def unload(self, name: str) -> bool:
        """Unload ``name``, and return whether it was held or being loaded. The value is closed at
        once where nobody uses it, else by its last user.

        A load under way is finished for those who wait for it, and its value is unloaded after
        that, unless somebody else asks for ``name`` in the meantime.
        """
        with self._cache.lock:
            self._loads.failures.forget(name)
            load = self._loads.under_way.get(name)
            if load is not None:
                load.discard = True
            item = self._cache.items.get(name)
            closing = [] if item is None else self._cache.retire(item)
        self._cache.finish(closing)
        return item is not None or load is not None

    def limit_items(self, max_items: int) -> None:
        """Set ``max_items``, 1 or above (not checked), from now on. Closes nothing: where more
        values are held, some are evicted when something is loaded next."""
        with self._cache.lock:
            self._cache.budget.max_items = max_items

    def evict(self, count: int = 1) -> list[str]:
        """Close up to ``count`` values that nobody uses, the least used first, and return their
        names; an empty list where all are in use. Unlike the other methods it may be called by the
        function ``load``, where that needs room that the registry does not count."""
        closing = self._cache.take_idle(count)
        self._cache.finish(closing)
        return [item.name for item in closing]

    def sweep(self) -> list[str]:
        """Close the values that nobody has used for ``idle_s`` seconds, and return their names.
        Closes nothing where ``idle_s`` is None. The owner has to call this now and then."""
        cache = self._cache
        now = cache.clock()
        closing: list[Item[V]] = []
        with cache.lock:
            self._loads.failures.sweep(now)
            if self._idle_s is not None:
                for item in list(cache.items.values()):
                    if item.pins == 0 and now - item.last_used_s >= self._idle_s:
                        closing += cache.retire(item)
                cache.counts.expirations += len(closing)
        cache.finish(closing)
        return [item.name for item in closing]

    def totals(self) -> RegistryTotals:
        """Return the sums and counts that ``stats`` returns, without anything about single items:
        this is cheap, however many are held."""
        cache = self._cache
        with cache.lock:
            return RegistryTotals(
                items=len(cache.items),
                bytes=cache.budget.bytes,
                max_items=cache.budget.max_items,
                **dataclasses.asdict(cache.counts),
            )

    def stats(self) -> RegistryStats:
        """Return what is held and being loaded at this moment, and counts since the registry was
        made. Numbers of single items may be a moment newer than the sums."""
        cache = self._cache
        with cache.lock:
            held = list(cache.items.values())
            numbers = RegistryStats(
                items=(),
                loading=tuple(self._loads.under_way),
                failed=self._loads.failures.messages(),
                bytes=cache.budget.bytes,
                max_bytes=cache.budget.max_bytes,
                max_items=cache.budget.max_items,
                retired=cache.retired,
                **dataclasses.asdict(cache.counts),
            )
        # Thousands of rows are made without the lock, which every hit needs.
        rows = sorted((item.stats() for item in held), key=lambda row: -row.last_used_s)
        return dataclasses.replace(numbers, items=tuple(rows))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse new users, who get Unavailable, close all values that nobody uses, and wait for
        the others. Returns whether all are closed.

        Waits at most about ``timeout_s`` seconds (None: without limit). A value that is still in
        use then is closed by its last user, and the value of a load that still runs is closed when
        the load ends. May be called again, to go on waiting.
        """
        cache = self._cache
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with cache.lock:
            cache.closed = True
            closing = [gone for item in list(cache.items.values()) for gone in cache.retire(item)]
        cache.finish(closing)
        return self._loads.close(until_s) and cache.wait_empty(until_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(_CLOSE_TIMEOUT_S)
