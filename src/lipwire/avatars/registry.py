"""Loaded things by name, within a budget, for many threads: opened avatars, networks on a device.

One lock guards all bookkeeping and is held for microseconds; loading, closing and looking at the
disk happen outside it, so a cold name delays nobody but those who ask for it.

    use ──hit──▶ pin ──▶ value ──▶ unpin
     └──miss──▶ join the load of that name, or begin it ──▶ wait (as long as the caller likes)
                  loader thread: version → make room → load → publish, pinned for all who wait

A value is closed by whoever sees its last pin go, and never before: what is evicted has no pins,
what is unloaded or replaced while in use is closed by its last user.
"""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from lipwire.avatars.budget import Budget
from lipwire.avatars.failures import Failure, Failures, fresh
from lipwire.avatars.holdings import (
    Counts,
    Item,
    Load,
    Loaded,
    RegistryStats,
    State,
)
from lipwire.avatars.loaders import Loaders
from lipwire.domain import (
    AvatarInvalid,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)
from lipwire.domain.eviction import NEVER_USED, Policy, Worths

_LOG: Final = logging.getLogger(__name__)
_SWAP_WAIT_S: Final = 1.0
"""How long the request that sees a package changed waits for its new form before it is served the
one it had; compiling a package may take minutes."""
_OFTEN_S: Final = 1.0
_CLOSE_TIMEOUT_S: Final = 20.0
"""How long the end of a ``with`` block waits for users; what they hold is closed by the last."""
_PASSING: Final = (Overloaded, DeadlineExceeded, Unavailable)
"""What says nothing about the package, and is not remembered."""

V = TypeVar("V")


class Use(Generic[V]):
    """A value while it is in use; made by ``Registry.use``. A context manager, entered once."""

    __slots__ = ("_item", "_name", "_registry", "_suits", "_timeout_s")

    def __init__(
        self,
        registry: "Registry[V]",
        name: str,
        timeout_s: float | None,
        suits: Callable[[V], bool] | None,
    ) -> None:
        self._registry = registry
        self._name = name
        self._timeout_s = timeout_s
        self._suits = suits
        self._item: Item[V] | None = None

    def __enter__(self) -> V:
        self._item = item = self._registry._pinned(self._name, self._timeout_s, self._suits)
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
        self._idle_s = idle_s
        self._clock = clock
        self._failure_memory_s = failure_memory_s
        self._version = version
        self._version_every_s = version_every_s
        self._kind = kind

        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        """Told whenever something has been closed."""
        self._items: dict[str, Item[V]] = {}
        self._loads: dict[str, Load[V]] = {}
        self._failures = Failures(failure_memory_s)
        self._worths = Worths(policy)
        self._budget: Budget[V] = Budget(max_items, max_bytes, kind)
        self._loaders: Loaders[Load[V]] = Loaders(
            self._carry_out, most=loaders, max_waiting=max_waiting_loads, kind=kind
        )
        self._closed = False
        self._held_bytes = 0
        self._retired = 0
        self._counts = Counts()

    # -- for callers -----------------------------------------------------------------------------

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
        return Use(self, name, timeout_s, suits)

    def load(self, name: str, *, timeout_s: float | None = None) -> bool:
        """Have ``name`` loaded and up to date; whether that took loading it.

        A remembered failure is forgotten first. Raises as ``use``; where only the newer version
        cannot be loaded, the one that was there stays.
        """
        with self._lock:
            self._failures.forget(name)
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
            self._failures.forget(name)
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
            self._failures.sweep(now)
            if self._idle_s is not None:
                for item in list(self._items.values()):
                    if item.pins == 0 and now - item.last_used_s >= self._idle_s:
                        closing += self._retire(item)
                self._counts.expirations += len(closing)
        self._finish(closing)
        return [item.name for item in closing]

    def stats(self) -> RegistryStats:
        """This moment's numbers. Those of single items may be a moment newer than the sums."""
        with self._lock:
            held = list(self._items.values())
            numbers = RegistryStats(
                items=(),
                loading=tuple(self._loads),
                failed=self._failures.messages(),
                bytes=self._budget.bytes,
                max_bytes=self._budget.max_bytes,
                max_items=self._budget.max_items,
                retired=self._retired,
                **dataclasses.asdict(self._counts),
            )
        # Thousands of rows are made without the lock, which every hit needs.
        rows = sorted((item.stats() for item in held), key=lambda row: -row.last_used_s)
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
        self._finish(closing)
        for load in self._loaders.withdraw():
            self._fail(load, self._closed_error(), None)
        if not self._loaders.wait_idle(until):
            return False
        with self._lock:
            while self._budget.items:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._room.wait(left)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(_CLOSE_TIMEOUT_S)

    # -- users -----------------------------------------------------------------------------------

    def _pinned(
        self, name: str, timeout_s: float | None, suits: Callable[[V], bool] | None
    ) -> Item[V]:
        """The quick way for what is there; everything else is ``_obtain``'s."""
        now = self._clock()
        with self._lock:
            item = self._items.get(name)
            if item is not None:
                good = now < item.check_at_s if suits is None else suits(item.value)
                if good:
                    self._counts.hits += 1
                    self._pin(item, now)
                    return item
        return self._obtain(name, timeout_s, insist=suits is not None)

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
                self._counts.hits += 1
                self._pin(item, start_s)
                if self._version is None or (start_s < item.check_at_s and not insist):
                    return item
                item.check_at_s = start_s + self._version_every_s
                due = item
            else:
                self._counts.misses += 1
                failure = self._failures.recent(name, start_s)
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
                if not (insist or item.gone):
                    # Perhaps it is being replaced this moment: the next look, in a second, decides.
                    item.gone = True
                    return item
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
        item.gone = False
        if version == item.version or version == item.refused_version:
            return item
        # Waiting is not using: where room is short the old value may have to go first.
        self._unpin(item)
        patience_s = timeout_s
        if not insist:
            patience_s = _SWAP_WAIT_S if timeout_s is None else min(_SWAP_WAIT_S, timeout_s / 2)
        try:
            return self._wait(self._join(item.name, instead_of=item), patience_s)
        except Exception as error:
            with self._lock:
                there = None if insist else self._items.get(item.name)
                if there is None:
                    raise
                self._pin(there, self._clock())
            # Slow is no news, and the next request looks again; broken is for its owner to mend.
            level = logging.INFO if isinstance(error, _PASSING) else logging.WARNING
            _LOG.log(level, "%s %s: the older form stays: %s", self._kind, item.name, error)
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
                raise fresh(load.error)
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
        if self._version_of(name) == failure.version:
            raise self._failures.told_again(failure, self._clock())
        with self._lock:
            self._failures.forget(name)

    def _closed_error(self) -> Unavailable:
        return Unavailable(f"{self._kind}s are being closed; ask another server")

    # -- loads -----------------------------------------------------------------------------------

    def _join(self, name: str, instead_of: Item[V] | None = None) -> Load[V]:
        """The load of ``name``, begun where there is none, with the caller as one who waits.

        It has ended already where something else than ``instead_of`` is held by now.
        """
        with self._lock:
            if self._closed:
                raise self._closed_error()
            held = self._items.get(name)
            if held is not None and held is not instead_of:
                load: Load[V] = Load(name)
                load.item = held
                load.done.set()
                self._pin(held, self._clock())
                return load
            begin = name not in self._loads
            if begin:
                self._loads[name] = Load(name)
            load = self._loads[name]
            load.discard = False
            load.waiters += 1
        if begin:
            try:
                self._loaders.begin(load)
            except Overloaded as error:
                self._fail(load, error, None)
        return load

    def _carry_out(self, load: Load[V]) -> None:
        """Load, in a loader's thread. Raises nothing."""
        with self._lock:
            if load.waiters == 0:  # all gave up before it was begun
                self._loads.pop(load.name, None)
                return
        version: object = None
        try:
            version = self._version_of(load.name)
            if version is NotFound and self._version is not None:
                self._version(load.name)  # raises it again, before room is made for nobody
            self._make_room(load, items=1, size=0)
            self._reserve_expected(load)
            start_s = time.monotonic()
            for last in (False, False, True):
                try:
                    loaded = self._load_value(load.name)
                    break
                except Exception:
                    # Replaced while it was read, and what was there is gone: what is there now
                    # counts. Where it stays the same, it is broken.
                    before, version = version, self._version_of(load.name)
                    if last or version in (before, NotFound):
                        raise
            item = Item(load.name, loaded, version, time.monotonic() - start_s)
        except BaseException as error:
            self._fail(load, error, version)
            return
        try:
            if self._budget.max_bytes is not None and item.bytes > self._budget.max_bytes:
                raise AvatarInvalid(
                    f"{self._kind} {load.name} takes {item.bytes:,} bytes of memory; allowed are"
                    f" {self._budget.max_bytes:,} for all together"
                )
            with self._lock:
                self._budget.learn(load.name, item.bytes)
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
            self._failures.forget(load.name)
            self._counts.loads += 1
            # What was reserved is the item's from here on: the sums stay as they are.
            old = self._items.get(item.name)
            item.worth = self._worths.remembered(item.name) if old is None else old.worth
            closing = [] if old is None else self._retire(old)
            self._counts.swaps += old is not None
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
            self._budget.candidates.add(item)
            if load.discard or self._closed:
                closing += self._retire(item)
            load.item = item
        load.done.set()
        self._finish(closing)

    def _fail(self, load: Load[V], error: BaseException, version: object) -> None:
        with self._lock:
            self._loads.pop(load.name, None)
            self._budget.give_back(load)
            self._counts.refusals += isinstance(error, Overloaded)
            self._room.notify_all()
            item = self._items.get(load.name)
            if not isinstance(error, _PASSING):
                self._counts.failures += 1
                if item is not None:
                    item.refused_version = version
                    item.replacement_error = str(error)
                    # Looked at again when the failure would have been forgotten.
                    item.check_at_s = self._clock() + self._failure_memory_s
                elif not self._closed:
                    self._failures.note(load.name, Failure(error, version, self._clock()))
            load.error = error
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
            known = self._budget.known_size(load.name)
            guess = self._held_bytes // len(self._items) if self._items else 0
        try:
            self._make_room(load, items=0, size=guess if known is None else known)
        except Overloaded:
            if known is not None:
                raise

    def _make_room(self, load: Load[V], *, items: int, size: int) -> None:
        """Reserve for ``load``, evicting what is not in use. Raises Overloaded."""
        while True:
            closing: list[Item[V]] = []
            with self._lock:
                if self._budget.reserve(load, items, size):
                    return
                if self._closed:
                    raise self._closed_error()
                if self._budget.will_fit(items, size):
                    self._room.wait()  # another thread is closing what has to go
                    continue
                for item in self._budget.victims(items, size, sparing=load.name):
                    self._worths.remember(item.name, item.worth, len(self._items))
                    closing += self._retire(item)
                self._counts.evictions += len(closing)
            self._finish(closing)

    def _retire(self, item: Item[V]) -> list[Item[V]]:
        """Let an item's name go; what is to be closed now, which ``_finish`` does."""
        if item.state is not State.HELD:
            return []
        if self._items.get(item.name) is item:
            del self._items[item.name]
        self._held_bytes -= item.bytes
        self._worths.holding(len(self._items))
        self._budget.candidates.tidy(len(self._items))
        item.state = State.RETIRED
        if item.pins:
            self._retired += 1
            return []
        return self._begin_closing(item)

    def _begin_closing(self, item: Item[V]) -> list[Item[V]]:
        self._budget.begin_closing(item)
        return [item]

    def _finish(self, closing: Iterable[Item[V]]) -> None:
        """Close, without the lock, and only then say that there is room."""
        for item in closing:
            self._close_value(item)
            with self._lock:
                self._budget.closed(item)
                self._room.notify_all()

    def _close_value(self, item: Item[V]) -> None:
        try:
            item.close()
        except Exception:
            _LOG.exception("%s %s could not be closed", self._kind, item.name)
