"""A registry's loads under way: one a name, joined by all who ask, carried out in other threads.

join ──▶ loader thread: version → make room → load → publish, pinned for all who wait
 └─▶ wait, as long as the caller likes; the load goes on without it
"""

import logging
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from lipwire.domain import DeadlineExceeded, LipwireError, NotFound, Overloaded, Unavailable
from lipwire.registry.cache import Cache
from lipwire.registry.failures import Failure, Failures, fresh
from lipwire.registry.items import Item, Load, Loaded
from lipwire.registry.loaders import Loaders

_LOG: Final = logging.getLogger(__name__)
PASSING: Final = (Overloaded, DeadlineExceeded, Unavailable)
"""Errors that say nothing about the package, and are not remembered."""

V = TypeVar("V")


class Loads(Generic[V]):
    """Loads values into the cache of a registry, each name once at a time, in threads of its own.
    Thread-safe: it uses the lock of the cache."""

    def __init__(
        self,
        cache: Cache[V],
        load: Callable[[str], Loaded[V]],
        *,
        version: Callable[[str], object] | None,
        version_every_s: float,
        failure_memory_s: float,
        loaders: int,
        max_waiting: int,
    ) -> None:
        """``cache`` is where loaded values go. ``load(name)`` loads a value; ``loaders`` loads run
        at a time, and up to ``max_waiting`` wait for a turn. A failed load is raised again for
        ``failure_memory_s`` seconds. ``version(name)`` returns the version of what would be loaded
        now (None: values have no versions); that of a loaded value is to be looked at again after
        ``version_every_s`` seconds."""
        self._cache = cache
        self._load_value = load
        self._version = version
        self._version_every_s = version_every_s
        self._failure_memory_s = failure_memory_s
        self.under_way: Final[dict[str, Load[V]]] = {}
        self.failures: Final = Failures(failure_memory_s)
        self._loaders: Loaders[Load[V]] = Loaders(
            self._carry_out, most=loaders, max_waiting=max_waiting, kind=cache.kind
        )

    def join(self, name: str, instead_of: Item[V] | None = None) -> Load[V]:
        """Return the load of ``name`` that is under way; where none is, begin one. The caller
        counts as waiting for it from then on, and has to call ``wait`` with it.

        ``instead_of`` is the item of that name that is to be replaced; None where there is none.
        Where a different item is held by now, the returned load has ended already, and ``wait``
        returns that item. Raises Unavailable where the cache was closed. Where too many loads wait,
        ``wait`` raises Overloaded.
        """
        cache = self._cache
        with cache.lock:
            if cache.closed:
                raise cache.closed_error()
            held = cache.items.get(name)
            if held is not None and held is not instead_of:
                load: Load[V] = Load(name)
                load.item = held
                load.done.set()
                cache.pin(held, cache.clock())
                return load
            begin = name not in self.under_way
            if begin:
                self.under_way[name] = Load(name)
            load = self.under_way[name]
            load.discard = False
            load.waiters += 1
        if begin:
            try:
                self._loaders.begin(load)
            except Overloaded as error:
                self._fail(load, error, None)
        return load

    def wait(self, load: Load[V], timeout_s: float | None) -> Item[V]:
        """Wait until ``load``, which ``join`` returned, has ended, and return its item, pinned for
        the caller, who has to unpin it.

        Raises DeadlineExceeded where it has not ended after ``timeout_s`` seconds (None: no limit);
        the load goes on. Where the load failed, raises its error: what the function ``load``
        raised, Overloaded where there is no room or too many loads wait, AvatarInvalid where the
        value is larger than the whole budget, or Unavailable where the cache was closed.
        """
        try:
            load.done.wait(timeout_s)
        except BaseException:  # Ctrl-C
            if not self._leave(load) and load.item is not None:
                self._cache.unpin(load.item)
            raise
        if load.done.is_set() or not self._leave(load):
            if load.error is not None:
                raise fresh(load.error)
            if load.item is not None:
                return load.item
        raise DeadlineExceeded(
            f"{self._cache.kind} {load.name} was not loaded within {timeout_s:g} s; loading goes on"
        )

    def _leave(self, load: Load[V]) -> bool:
        """Stop waiting. False where the load has ended: then what it brought is the caller's."""
        with self._cache.lock:
            if load.item is not None or load.error is not None:
                return False
            load.waiters -= 1
            return True

    def tell_again(self, name: str, failure: Failure) -> None:
        """Raise the error of ``failure``, the latest failed load of ``name``, once more where the
        version of ``name`` is still the one that could not be loaded, or values have no versions.
        The error is a new one of the same type, and a LipwireError says at its end how long ago the
        load failed. Otherwise forget the failure and return."""
        if self._version_of(name) == failure.version:
            raise self.failures.told_again(failure, self._cache.clock())
        with self._cache.lock:
            self.failures.forget(name)

    def close(self, until_s: float | None) -> bool:
        """Make all loads that no thread has begun fail with Unavailable, and wait for the loads
        under way, at most until the time ``until_s``, in seconds of ``time.monotonic`` (None: no
        limit). Returns whether all have ended."""
        for load in self._loaders.withdraw():
            self._fail(load, self._cache.closed_error(), None)
        return self._loaders.wait_idle(until_s)

    def _carry_out(self, load: Load[V]) -> None:
        """Load, in a loader's thread. Raises nothing."""
        with self._cache.lock:
            if load.waiters == 0:  # all gave up before it was begun
                self.under_way.pop(load.name, None)
                return
        version: object = None
        try:
            version = self._version_of(load.name)
            if version is NotFound and self._version is not None:
                self._version(load.name)  # raises it again, before room is made for nobody
            self._cache.reserve(load)
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
            if self._version_of(load.name) != version:
                # Replaced while it was read: nobody knows of which form it is, and the version that
                # comes back may not be what was read. The next look has it loaded again.
                version = object()
            item = Item(load.name, loaded, version, time.monotonic() - start_s)
        except BaseException as error:
            self._fail(load, error, version)
            return
        try:
            self._cache.measured(load, item)
        except BaseException as error:
            self._cache.close_value(item)
            self._fail(load, error, version)
            return
        self._publish(load, item)

    def _publish(self, load: Load[V], item: Item[V]) -> None:
        cache = self._cache
        now = cache.clock()
        with cache.lock:
            self.under_way.pop(load.name, None)
            self.failures.forget(load.name)
            cache.counts.loads += 1
            item.check_at_s = now + self._version_every_s
            if self._version is None:
                item.check_at_s = float("inf")
            closing = cache.put(item, users=load.waiters, now=now)
            if load.discard or cache.closed:
                closing += cache.retire(item)
            load.item = item
        load.done.set()
        cache.finish(closing)

    def _fail(self, load: Load[V], error: BaseException, version: object) -> None:
        cache = self._cache
        with cache.lock:
            self.under_way.pop(load.name, None)
            cache.give_back(load)
            cache.counts.refusals += isinstance(error, Overloaded)
            item = cache.items.get(load.name)
            if not isinstance(error, PASSING):
                cache.counts.failures += 1
                if item is not None:
                    item.refused_version = version
                    item.replacement_error = str(error)
                    # Looked at again when the failure would have been forgotten.
                    item.check_at_s = cache.clock() + self._failure_memory_s
                elif not cache.closed:
                    self.failures.note(load.name, Failure(error, version, cache.clock()))
            load.error = error
        if item is None and isinstance(error, LipwireError):
            self._say_why(load.name, error)
        load.done.set()

    def _say_why(self, name: str, error: LipwireError) -> None:
        """Log what is for the owner of ``name`` to mend: not that the registry is full or closed,
        and not names of nothing, which anybody can ask for."""
        if not isinstance(error, (*PASSING, NotFound)):
            extra = {"model": name}
            _LOG.warning("%s %s cannot be loaded: %s", self._cache.kind, name, error, extra=extra)

    def _version_of(self, name: str) -> object:
        if self._version is None:
            return None
        try:
            return self._version(name)
        except Exception as error:
            return type(error)  # whatever is wrong, loading will say it
