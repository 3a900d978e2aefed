"""Loaded things by name, within a budget, for many threads: opened avatars, networks on a device.

One lock guards all bookkeeping and is held for microseconds; loading, closing and looking at the
disk happen outside it, so a cold name delays nobody but those who ask for it.

    use ──hit──▶ pin ──▶ value ──▶ unpin
     └──miss──▶ join the load of that name, or begin it ──▶ wait (as long as the caller likes)
                  loader thread: version → make room → load → publish, pinned for all who wait

A value is closed by whoever sees its last pin go, and never before: what is evicted has no pins,
what is unloaded or replaced while in use is closed by its last user.
"""

import copy
import dataclasses
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from lipwire.avatars.eviction import NEVER_USED, Candidates, Policy, Worths
from lipwire.avatars.holdings import (
    Failure,
    Item,
    ItemStats,
    Load,
    Loaded,
    RegistryStats,
    State,
)
from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    InvalidInput,
    LipwireError,
    NotFound,
    Overloaded,
    Unavailable,
)

_LOG: Final = logging.getLogger(__name__)
_MAX_FAILURES: Final = 1024
_RETRY_AFTER_S: Final = 0.25
_SWAP_WAIT_S: Final = 1.0
"""How long the request that sees a package changed waits for its new form before it is served the
one it had; compiling a package may take minutes."""
_OFTEN_S: Final = 1.0

V = TypeVar("V")


class Use(Generic[V]):
    """A value while it is in use; made by ``Registry.use``. A context manager, entered once."""

    __slots__ = ("_item", "_name", "_registry", "_timeout_s")

    def __init__(self, registry: "Registry[V]", name: str, timeout_s: float | None) -> None:
        self._registry = registry
        self._name = name
        self._timeout_s = timeout_s
        self._item: Item[V] | None = None

    def __enter__(self) -> V:
        self._item = item = self._registry._pinned(self._name, self._timeout_s)
        return item.value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        item, self._item = self._item, None
        if item is not None:
            self._registry._unpin(item)


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
        self._load_value = load
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._idle_s = idle_s
        self._clock = clock
        self._failure_memory_s = failure_memory_s
        self._version = version
        self._version_every_s = version_every_s
        self._loaders = loaders
        self._max_waiting = max_waiting_loads
        self._kind = kind

        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        """Told when room comes free, and when a load ends."""
        self._items: dict[str, Item[V]] = {}
        self._loads: dict[str, Load[V]] = {}
        self._waiting: deque[Load[V]] = deque()
        self._busy_loaders = 0
        self._failures: OrderedDict[str, Failure] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._worths = Worths(policy)
        self._candidates: Candidates[Item[V]] = Candidates(_is_held)
        self._closed = False
        # Everything not closed yet and everything reserved; of it, what is being closed just now.
        self._taken_items = self._taken_bytes = 0
        self._closing_items = self._closing_bytes = 0
        self._held_bytes = 0
        self._retired = 0
        self._hits = self._misses = self._load_count = self._evictions = 0
        self._expirations = self._swaps = self._failure_count = self._refusals = 0

    # -- for callers -----------------------------------------------------------------------------

    def use(self, name: str, *, timeout_s: float | None = None) -> Use[V]:
        """The value of ``name``, loaded where it is not, and kept while the block runs.

        Waits for a load at most ``timeout_s``; the load goes on without the caller. On entering
        raises DeadlineExceeded, Overloaded (everything held is in use and the budget is full, or
        too many loads wait), Unavailable (closed), and what ``load`` raised; a failure is told
        again to whoever asks within ``failure_memory_s``, unless the version has changed.
        """
        return Use(self, name, timeout_s)

    def load(self, name: str, *, timeout_s: float | None = None) -> bool:
        """Have ``name`` loaded and up to date; whether that took loading it.

        A remembered failure is forgotten first. Raises as ``use``; where only the newer version
        cannot be loaded, the one that was there stays.
        """
        with self._lock:
            self._failures.pop(name, None)
            before = self._items.get(name)
            if before is not None:
                before.refused_version = None
        item = self._obtain(name, timeout_s, insist=True)
        self._unpin(item)
        return item is not before

    def unload(self, name: str) -> bool:
        """Give ``name`` up; whether it was there. In use, it is closed by its last user.

        A load under way is finished for those who wait for it and then given up, unless somebody
        asks for it in the meantime.
        """
        with self._lock:
            self._failures.pop(name, None)
            load = self._loads.get(name)
            if load is not None:
                load.discard = True
            item = self._items.get(name)
            closing = [] if item is None else self._retire(item)
        self._finish(closing)
        return item is not None or load is not None

    def sweep(self) -> list[str]:
        """Close what nobody has used for ``idle_s``; the names of it. Call it now and then."""
        now = self._clock()
        closing: list[Item[V]] = []
        with self._lock:
            for name in [
                name
                for name, failure in self._failures.items()
                if now - failure.at_s >= self._failure_memory_s
            ]:
                del self._failures[name]
            if self._idle_s is not None:
                for item in list(self._items.values()):
                    if item.pins == 0 and now - item.last_used_s >= self._idle_s:
                        closing += self._retire(item)
                self._expirations += len(closing)
        self._finish(closing)
        return [item.name for item in closing]

    def stats(self) -> RegistryStats:
        """This moment's numbers. Those of single items may be a moment newer than the sums."""
        with self._lock:
            held = list(self._items.values())
            numbers = RegistryStats(
                items=(),
                loading=tuple(self._loads),
                failed=tuple((name, str(f.error)) for name, f in self._failures.items()),
                bytes=self._taken_bytes,
                max_bytes=self._max_bytes,
                max_items=self._max_items,
                retired=self._retired,
                hits=self._hits,
                misses=self._misses,
                loads=self._load_count,
                evictions=self._evictions,
                expirations=self._expirations,
                swaps=self._swaps,
                failures=self._failure_count,
                refusals=self._refusals,
            )
        # Thousands of rows are made without the lock, which every hit needs.
        rows = [
            ItemStats(
                name=item.name,
                bytes=item.bytes,
                uses=item.uses,
                pins=item.pins,
                loaded_at_s=item.loaded_at_s,
                last_used_s=item.last_used_s,
                load_s=item.load_s,
                stale=item.replacement_error,
            )
            for item in held
        ]
        rows.sort(key=lambda row: row.last_used_s, reverse=True)
        return dataclasses.replace(numbers, items=tuple(rows))

    def close(self, timeout_s: float | None = None) -> bool:
        """Refuse new users, close what is free, and wait for the rest; whether all is closed.

        What is still in use after ``timeout_s`` is closed by its last user, and a load still
        running is closed when it ends. May be called again, to go on waiting.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            self._closed = True
            closing = [gone for item in list(self._items.values()) for gone in self._retire(item)]
            waiting = list(self._waiting)
            self._waiting.clear()
        self._finish(closing)
        for load in waiting:
            self._fail(load, self._closed_error(), None)
        with self._lock:
            while self._taken_items or self._busy_loaders:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- users -----------------------------------------------------------------------------------

    def _pinned(self, name: str, timeout_s: float | None) -> Item[V]:
        """The quick way for what is there; everything else is ``_obtain``'s."""
        now = self._clock()
        with self._lock:
            item = self._items.get(name)
            if item is not None and now < item.check_at_s:
                self._hits += 1
                self._pin(item, now)
                return item
        return self._obtain(name, timeout_s)

    def _pin(self, item: Item[V], now: float) -> None:
        item.pins += 1
        item.uses += 1
        item.last_used_s = now
        item.worth = self._worths.after_use(item.worth)

    def _unpin(self, item: Item[V]) -> None:
        now = self._clock()
        with self._lock:
            item.last_used_s = now  # a use may last longer than the idle time
            closing = self._unpinned(item)
        if closing:
            self._finish(closing)

    def _unpinned(self, item: Item[V]) -> list[Item[V]]:
        item.pins -= 1
        if item.pins or item.state is not State.RETIRED:
            return []
        self._retired -= 1
        return self._begin_closing(item)

    def _obtain(self, name: str, timeout_s: float | None, *, insist: bool = False) -> Item[V]:
        """The item of ``name``, pinned for the caller. ``insist``: only the newest version will
        do."""
        start_s = self._clock()
        due = None
        with self._lock:
            if self._closed:
                raise self._closed_error()
            item = self._items.get(name)
            if item is not None:
                self._hits += 1
                self._pin(item, start_s)
                if self._version is None or (start_s < item.check_at_s and not insist):
                    return item
                item.check_at_s = start_s + self._version_every_s
                due = item
            else:
                self._misses += 1
                failure = self._failures.get(name)
        if due is not None and self._version is not None:
            return self._checked(due, self._version, timeout_s, insist)
        if failure is not None:
            self._tell_again(name, failure)
        return self._wait(self._join(name), timeout_s)

    def _checked(
        self,
        item: Item[V],
        look: Callable[[str], object],
        timeout_s: float | None,
        insist: bool,
    ) -> Item[V]:
        """``item``, which is pinned, or what takes its place where it has changed on disk."""
        try:
            version = look(item.name)
        except NotFound:
            with self._lock:
                closing = self._retire(item) + self._unpinned(item)
            self._finish(closing)
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not insist:
                # A disk that does not answer now is no reason to stop serving what is loaded.
                _LOG.warning("%s %s: cannot look for changes: %s", self._kind, item.name, error)
                return item
            self._unpin(item)
            raise
        if version == item.version or version == item.refused_version:
            return item
        # Waiting is not using: where room is short the old value may have to go first.
        self._unpin(item)
        patience_s = timeout_s
        if not insist:
            patience_s = _SWAP_WAIT_S if timeout_s is None else min(_SWAP_WAIT_S, timeout_s / 2)
        try:
            return self._wait(self._join(item.name), patience_s)
        except LipwireError as error:
            with self._lock:
                there = None if insist else self._items.get(item.name)
                if there is None:
                    raise
                self._pin(there, self._clock())
            _LOG.warning("%s %s: the older form stays: %s", self._kind, item.name, error)
            return there

    def _wait(self, load: Load[V], timeout_s: float | None) -> Item[V]:
        """The item of a load that the caller has joined, which is pinned for it."""
        try:
            load.done.wait(timeout_s)
        except BaseException:  # Ctrl-C
            if not self._leave(load) and load.item is not None:
                self._unpin(load.item)
            raise
        if load.done.is_set() or not self._leave(load):
            if load.error is not None:
                raise _fresh(load.error)
            if load.item is not None:
                return load.item
        raise DeadlineExceeded(
            f"{self._kind} {load.name} was not loaded within {timeout_s:g} s; loading goes on"
        )

    def _leave(self, load: Load[V]) -> bool:
        """Stop waiting. False where the load has ended: then what it brought is the caller's."""
        with self._lock:
            if load.item is not None or load.error is not None:
                return False
            load.waiters -= 1
            return True

    def _tell_again(self, name: str, failure: Failure) -> None:
        """Raise a failure that is remembered, or forget it where trying again may help."""
        ago_s = self._clock() - failure.at_s
        if ago_s < self._failure_memory_s and self._version_of(name) == failure.version:
            error = failure.error
            if not isinstance(error, LipwireError):
                raise _fresh(error)
            raise type(error)(
                f"{error}; seen {max(ago_s, 0.0):.1f} s ago, tried again when the package changes"
                f" or after {self._failure_memory_s:g} s"
            ) from error
        with self._lock:
            if self._failures.get(name) is failure:
                del self._failures[name]

    def _closed_error(self) -> Unavailable:
        return Unavailable(f"{self._kind}s are being closed; ask another server")

    # -- loads -----------------------------------------------------------------------------------

    def _join(self, name: str) -> Load[V]:
        """The load of ``name``, begun where there is none, with the caller as one who waits."""
        thread = None
        with self._lock:
            if self._closed:
                raise self._closed_error()
            load = self._loads.get(name)
            if load is None:
                load = Load(name, self._clock())
                if self._busy_loaders < self._loaders:
                    self._busy_loaders += 1
                    thread = threading.Thread(
                        target=self._work, args=(load,), name=f"lipwire-load-{name}", daemon=True
                    )
                elif len(self._waiting) < self._max_waiting:
                    self._waiting.append(load)
                else:
                    self._refusals += 1
                    raise Overloaded(
                        f"{len(self._waiting)} {self._kind}s wait to be loaded; allowed are"
                        f" {self._max_waiting}",
                        retry_after_s=_RETRY_AFTER_S,
                    )
                self._loads[name] = load
            load.discard = False
            load.waiters += 1
        if thread is not None:
            try:
                thread.start()
            except RuntimeError:  # the system gives no more threads
                with self._lock:
                    self._busy_loaders -= 1
                    self._changed.notify_all()
                self._fail(load, Overloaded("no thread can be started to load with"), None)
        return load

    def _work(self, load: Load[V] | None) -> None:
        """A loader's life: one load after the other, until none waits."""
        while load is not None:
            with self._lock:
                wanted = load.waiters > 0
                if not wanted:  # all gave up before it was begun; it is gone before any can join
                    self._loads.pop(load.name, None)
                    load.error = DeadlineExceeded(f"nobody waited for {self._kind} {load.name}")
            if wanted:
                self._carry_out(load)
            with self._lock:
                load = self._waiting.popleft() if self._waiting else None
                if load is None:
                    self._busy_loaders -= 1
                    self._changed.notify_all()

    def _carry_out(self, load: Load[V]) -> None:
        version: object = None
        try:
            version = self._version_of(load.name)
            self._make_room(load, items=1, size=0)
            self._reserve_expected(load)
            start_s = time.monotonic()
            loaded = self._load_value(load.name)
            load_s = time.monotonic() - start_s
        except BaseException as error:
            self._fail(load, error, version)
            return
        item = Item(load.name, loaded, version, load_s)
        try:
            if self._max_bytes is not None and item.bytes > self._max_bytes:
                raise AvatarInvalid(
                    f"{self._kind} {load.name} takes {item.bytes:,} bytes of memory; allowed are"
                    f" {self._max_bytes:,} for all together"
                )
            with self._lock:
                self._sizes[load.name] = item.bytes
            self._make_room(load, items=0, size=item.bytes - load.reserved_bytes)
        except BaseException as error:
            self._close_value(item)
            self._fail(load, error, version)
            return
        self._publish(load, item)

    def _publish(self, load: Load[V], item: Item[V]) -> None:
        now = self._clock()
        with self._lock:
            self._loads.pop(load.name, None)
            self._failures.pop(load.name, None)
            self._load_count += 1
            # What was reserved is the item's from here on: the sums stay as they are.
            old = self._items.get(item.name)
            item.worth = self._worths.remembered(item.name) if old is None else old.worth
            closing = [] if old is None else self._retire(old)
            self._swaps += old is not None
            item.loaded_at_s = item.last_used_s = now
            item.check_at_s = now + self._version_every_s
            if self._version is None:
                item.check_at_s = float("inf")
            self._items[item.name] = item
            self._held_bytes += item.bytes
            self._worths.holding(len(self._items))
            for _ in range(load.waiters):
                self._pin(item, now)
            if item.worth == NEVER_USED:
                item.worth = self._worths.after_use(item.worth)
            self._candidates.add(item)
            if load.discard or self._closed:
                closing += self._retire(item)
            load.item = item
            self._changed.notify_all()
        load.done.set()
        self._finish(closing)

    def _fail(self, load: Load[V], error: BaseException, version: object) -> None:
        passing = isinstance(error, Overloaded | DeadlineExceeded | Unavailable)
        with self._lock:
            self._loads.pop(load.name, None)
            self._taken_items -= load.reserved_items
            self._taken_bytes -= load.reserved_bytes
            item = self._items.get(load.name)
            if not passing:
                self._failure_count += 1
                if item is not None:
                    item.refused_version = version
                    item.replacement_error = str(error)
                    # Looked at again when the failure would have been forgotten.
                    item.check_at_s = self._clock() + self._failure_memory_s
                elif not self._closed:
                    self._failures[load.name] = Failure(error, version, self._clock())
                    while len(self._failures) > _MAX_FAILURES:
                        self._failures.popitem(last=False)
            load.error = error
            self._changed.notify_all()
        load.done.set()

    def _version_of(self, name: str) -> object:
        if self._version is None:
            return None
        try:
            return self._version(name)
        except Exception as error:
            return type(error)  # whatever is wrong, loading will say it

    # -- room ------------------------------------------------------------------------------------

    def _reserve_expected(self, load: Load[V]) -> None:
        """Make room for what a value will take, before it is there. Raises Overloaded.

        Where it was never measured it is guessed, and a guess refuses nobody.
        """
        with self._lock:
            known = self._sizes.get(load.name)
            guess = self._held_bytes // len(self._items) if self._items else 0
        try:
            self._make_room(load, items=0, size=guess if known is None else known)
        except Overloaded:
            if known is not None:
                raise

    def _lacking(self, items: int, size: int) -> tuple[int, int]:
        """How many items and bytes too many there would be."""
        over_items = 0 if self._max_items is None else self._taken_items + items - self._max_items
        over_bytes = 0 if self._max_bytes is None else self._taken_bytes + size - self._max_bytes
        return max(over_items, 0), max(over_bytes, 0)

    def _make_room(self, load: Load[V], *, items: int, size: int) -> None:
        """Reserve for ``load``, evicting what is not in use. Raises Overloaded."""
        while True:
            closing: list[Item[V]] = []
            with self._lock:
                over_items, over_bytes = self._lacking(items, size)
                if not over_items and not over_bytes:
                    load.reserved_items += items
                    load.reserved_bytes += size
                    self._taken_items += items
                    self._taken_bytes += size
                    return
                if self._closed:
                    raise self._closed_error()
                over_items -= self._closing_items
                over_bytes -= self._closing_bytes
                if over_items <= 0 and over_bytes <= 0:
                    self._changed.wait()  # another thread is closing what has to go
                    continue
                victims = self._victims(over_items, over_bytes, load.name)
                if victims is None:
                    self._refusals += 1
                    raise self._full_error(load.name)
                for item in victims:
                    self._worths.remember(item.name, item.worth, len(self._items))
                    closing += self._retire(item)
                self._evictions += len(victims)
            self._finish(closing)

    def _victims(self, items: int, size: int, sparing: str) -> list[Item[V]] | None:
        """What to evict for so many items and bytes; what is to be replaced comes last of all."""
        for spared in (sparing, None):
            left = [items, size]

            def enough(item: Item[V], left: list[int] = left) -> bool:
                left[0] -= 1
                left[1] -= item.bytes
                return left[0] <= 0 and left[1] <= 0

            def wanted(item: Item[V], spared: str | None = spared) -> bool:
                return item.pins == 0 and item.name != spared

            found = self._candidates.choose(wanted, enough)
            if found is not None:
                return found
        return None

    def _full_error(self, name: str) -> Overloaded:
        held = f"{self._taken_items} {self._kind}s ({self._taken_bytes:,} bytes)"
        limits = [] if self._max_items is None else [f"{self._max_items} {self._kind}s"]
        if self._max_bytes is not None:
            limits.append(f"{self._max_bytes:,} bytes")
        return Overloaded(
            f"no room to load {self._kind} {name}: {held} are in use or being loaded; allowed are"
            f" {' and '.join(limits)}",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _retire(self, item: Item[V]) -> list[Item[V]]:
        """Let an item's name go; what is to be closed now, which ``_finish`` does."""
        if item.state is not State.HELD:
            return []
        if self._items.get(item.name) is item:
            del self._items[item.name]
        self._held_bytes -= item.bytes
        self._worths.holding(len(self._items))
        self._candidates.tidy(len(self._items))
        item.state = State.RETIRED
        if item.pins:
            self._retired += 1
            return []
        return self._begin_closing(item)

    def _begin_closing(self, item: Item[V]) -> list[Item[V]]:
        item.state = State.CLOSING
        self._closing_items += 1
        self._closing_bytes += item.bytes
        return [item]

    def _finish(self, closing: Iterable[Item[V]]) -> None:
        """Close, without the lock, and only then say that there is room."""
        for item in closing:
            self._close_value(item)
            with self._lock:
                self._taken_items -= 1
                self._taken_bytes -= item.bytes
                self._closing_items -= 1
                self._closing_bytes -= item.bytes
                self._changed.notify_all()

    def _close_value(self, item: Item[V]) -> None:
        try:
            item.close()
        except Exception:
            _LOG.exception("%s %s could not be closed", self._kind, item.name)


def _is_held(item: Item[V]) -> bool:
    return item.state is State.HELD


def _fresh(error: BaseException) -> BaseException:
    """An error for one more thread to raise: a traceback belongs to one of them."""
    try:
        told = copy.copy(error)
    except Exception:  # its constructor wants something else
        return error
    told.__cause__ = error
    return told
