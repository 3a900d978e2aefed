"""The value of a name, for a user: what is there, its newer form on disk, or a load of it.

pinned ──hit──▶ value
   ├──looked at too long ago──▶ the same version: value; another: as a miss, with the old one
   │                            served where the new one is slow or broken
   └──miss──▶ failed a moment ago: the same again; else join the load, and wait
"""

import logging
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from lipwire.domain import NotFound
from lipwire.registry.cache import Cache
from lipwire.registry.items import Item
from lipwire.registry.loads import PASSING, Loads

_LOG: Final = logging.getLogger(__name__)
_SWAP_WAIT_S: Final = 1.0
"""How long the request that sees a package changed waits for its new form before it is served the
one it had; compiling a package may take minutes."""

V = TypeVar("V")


class Lookups(Generic[V]):
    """Finds the items of a registry and pins them for their users; loads those that are missing or
    out of date. Thread-safe."""

    def __init__(
        self,
        cache: Cache[V],
        loads: Loads[V],
        *,
        version: Callable[[str], object] | None,
        version_every_s: float,
        refresh: Callable[[str], object] | None = None,
    ) -> None:
        """``cache`` has the items, ``loads`` loads them. ``version(name)`` returns the version of
        what would be loaded now (None: values have no versions); it is called when an item is
        asked for, once in ``version_every_s`` seconds or with ``insist``. ``refresh(name)`` is
        called before ``version`` with ``insist`` alone, so that ``version`` knows the newest."""
        self._cache = cache
        self._loads = loads
        self._version = version
        self._version_every_s = version_every_s
        self._refresh = refresh

    def obtain(self, name: str, timeout_s: float | None, *, insist: bool) -> Item[V]:
        """Return the item of ``name``, pinned for the caller, who has to unpin it. Where the item
        is not held, or there is a newer version, it is loaded, and the caller waits for that at
        most ``timeout_s`` seconds (None: no limit).

        With ``insist`` the version is looked at even where that was done a moment ago, and an error
        is raised where a newer version cannot be loaded. Without ``insist``, an older version that
        is held is returned instead of such an error. In both cases a newer version that failed
        before (``Item.refused_version``) is not tried again: the older one is returned. Raises
        DeadlineExceeded after ``timeout_s`` seconds, Overloaded where too much is in use or too
        many loads wait, Unavailable where the cache was closed, and the error with which loading
        failed now or a moment ago.
        """
        cache = self._cache
        start_s = cache.clock()
        due = None
        with cache.lock:
            if cache.closed:
                raise cache.closed_error()
            item = cache.items.get(name)
            if item is not None:
                cache.counts.hits += 1
                cache.pin(item, start_s)
                if self._version is None or (start_s < item.check_at_s and not insist):
                    return item
                item.check_at_s = start_s + self._version_every_s
                due = item
            else:
                cache.counts.misses += 1
                failure = self._loads.failures.recent(name, start_s)
        if due is not None and self._version is not None:
            return self._checked(due, self._version, timeout_s, insist)
        if failure is not None:
            self._loads.tell_again(name, failure)
        return self._loads.wait(self._loads.join(name), timeout_s)

    def _checked(
        self,
        item: Item[V],
        look: Callable[[str], object],
        timeout_s: float | None,
        insist: bool,
    ) -> Item[V]:
        """``item``, which is pinned, or what takes its place where it has changed on disk."""
        cache = self._cache
        try:
            if insist and self._refresh is not None:
                self._refresh(item.name)
            version = look(item.name)
        except NotFound:
            with cache.lock:
                if not (insist or item.gone):
                    # Perhaps it is being replaced this moment: the next look, in a second, decides.
                    item.gone = True
                    return item
                closing = cache.retire(item) + cache.unpinned(item)
            cache.finish(closing)
            raise
        except BaseException as error:
            if isinstance(error, Exception) and not insist:
                # A disk that does not answer now is no reason to stop serving what is loaded.
                _LOG.warning("%s %s: cannot look for changes: %s", cache.kind, item.name, error)
                return item
            cache.unpin(item)
            raise
        item.gone = False
        if version == item.version or version == item.refused_version:
            return item
        # Waiting is not using: where room is short the old value may have to go first.
        cache.unpin(item)
        patience_s = timeout_s
        if not insist:
            patience_s = _SWAP_WAIT_S if timeout_s is None else min(_SWAP_WAIT_S, timeout_s / 2)
        try:
            return self._loads.wait(self._loads.join(item.name, instead_of=item), patience_s)
        except Exception as error:
            with cache.lock:
                there = None if insist else cache.items.get(item.name)
                if there is None:
                    raise
                cache.pin(there, cache.clock())
            # Slow is no news, and the next request looks again; broken is for its owner to mend.
            level = logging.INFO if isinstance(error, PASSING) else logging.WARNING
            _LOG.log(level, "%s %s: the older form stays: %s", cache.kind, item.name, error)
            return there
