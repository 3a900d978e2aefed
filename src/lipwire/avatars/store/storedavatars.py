"""Avatars by name, from a store: which version is shown, and where its files lie on this machine.

A request never waits for the store where its avatar is loaded: which version that is stands in
memory, and ``poll`` looks at the store, beside the requests. A version that is published is brought
here first, and shown when all of it is there; then ``version`` gives another token, by which the
registry loads it in the place of the one before, between two requests.

A store that is away changes nothing: what is in the cache is opened, as it was published when the
store was last asked.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from lipwire.avatars.catalog import Catalog
from lipwire.avatars.package import Half
from lipwire.avatars.packages import HeldFiles
from lipwire.avatars.store.canaries import Canaries
from lipwire.avatars.store.layout import PUBLISHED, Published
from lipwire.avatars.store.packagecache import HeldPackage, PackageCache
from lipwire.avatars.store.pushing import SHORT_DIGITS, avatars_in, published
from lipwire.domain import AvatarFiles, InvalidInput, LipwireError, NotFound, Unavailable
from lipwire.domain.closing import Closing
from lipwire.domain.names import canonical_name, checked_name, is_name
from lipwire.domain.versions import Chosen, parted, versioned
from lipwire.stores.objects import ObjectStore

_LOG: Final = logging.getLogger("lipwire.avatars")
_OFTEN_S: Final = 1.0
"""A name is looked up in the store so often at most, whoever asks for it."""
_ASKED_NOW: Final = -1.0
"""An age that nothing has: the store is asked."""
_MISSED_MOST: Final = 10_000
_PREFETCHERS: Final = 4
_AWAY_S: Final = 1.0
"""After how long a store that is away is tried again, beside the requests."""
_ANSWERS_S: Final = 2.0
"""How long it may take to answer then: a question from before it was back may never be answered, so
that another one is asked soon."""


@dataclass(slots=True)
class _Known:
    """What is known of an avatar: what is published, in which ``version`` it is shown here, and
    when the store was asked (``asked_s``)."""

    now: Published
    version: str
    asked_s: float
    token: tuple[str, ...] | None = None
    users: int = 0


class StoredAvatars(Closing):
    """Finds avatars in a store, and keeps the files of those in use on this machine. Thread-safe, a
    context manager, and one of ``Packages``; the owner calls ``tick`` about once a second.
    ``canaries`` decides who is shown a canary, a version that is published for a share of the
    users.

    A ``name`` is an avatar's; where a method says so it may also be that of one version of an
    avatar, "NAME:VERSION" with the version's 64 hexadecimal digits.
    """

    def __init__(
        self,
        store: ObjectStore,
        cache: PackageCache,
        entries: Catalog,
        *,
        poll_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``store`` has the avatars, ``cache``, which is closed with this, those in use.
        ``entries`` are avatars that lie elsewhere; they go before those of the store. Every
        ``poll_s`` seconds ``tick`` looks for newer versions; what was asked less than ``poll_s``
        ago is not asked again when an avatar is loaded. ``clock`` gives seconds. Nothing is asked
        yet."""
        self._store = store
        self._cache = cache
        self._entries = entries
        self._poll_s = poll_s
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._missed: OrderedDict[str, float] = OrderedDict()
        """Names that the store did not have, and when it was asked."""
        self._listed: dict[str, tuple[str, ...]] | None = None
        self._away = False
        self._why = ""
        self._poll_at_s = -1.0
        self._polling = threading.Lock()
        self._evict: Callable[[int], object] = lambda count: None
        self._unload: Callable[[str], object] = lambda name: None
        self._versions: dict[str, set[str]] = {}
        """By avatar, the versions that were held under names of their own."""
        self._forgetting: set[str] = set()
        """Published no more, and perhaps still open."""
        self._fetching: dict[str, Future[None]] = {}
        self._workers = ThreadPoolExecutor(_PREFETCHERS, thread_name_prefix="lipwire-prefetch")
        self.canaries: Final = Canaries(self._workers, clock)
        """Versions that are shown to some; none before its ``load`` is set."""

    @property
    def away(self) -> bool:
        """Whether the store could not be asked when it was last tried."""
        return self._away

    @property
    def cache(self) -> PackageCache:
        """Where the versions in use lie."""
        return self._cache

    def close(self) -> None:
        """Stop downloads in the background, without waiting for their end, and close the cache,
        which gives up what is pinned."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._cache.close()

    # -- names -----------------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """Return the names of all avatars in alphabetical order: of the avatars that lie elsewhere
        (``entries``), of those that the store had when it was listed last, and of those found in it
        by their name since. A store that was never listed is asked now, and the call waits for it;
        where it cannot be reached, avatars whose files are in the cache on this machine take the
        place of its list."""
        if self._listed is None:
            with suppress(LipwireError):
                self._list()
        with self._lock:
            found: Iterable[str] = self._listed if self._listed is not None else ()
            known = {*found, *self._known}
        if self._listed is None:
            known.update(self._cache.names())
        return tuple(sorted(known | set(self._entries.names())))

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        """Whether there is an avatar of that name; False also where that is not known and the store
        is away."""
        if not isinstance(name, str) or not is_name(name):
            return False
        try:
            return name in self._entries or self._look(canonical_name(name)) is not None
        except LipwireError:
            return False

    def files(self, name: str) -> AvatarFiles:
        """Return where the files of the avatar ``name``, one of ``entries``, lie. Raises
        InvalidInput for one of the store, which ``pushing.forget`` removes, and for what cannot be
        an avatar's name; NotFound where there is none, Unavailable where that is not known and the
        store is away."""
        name = checked_name(name)
        if name in self._entries:
            return self._entries.files(name)
        self._look(name)
        raise InvalidInput(
            f"avatar {name} lies in a store; lipwire avatar forget {name} --store URL removes it"
            " there, and servers then remove it from their caches"
        )

    # -- for a registry --------------------------------------------------------------------------

    def version(self, name: str, need: frozenset[Half] = frozenset()) -> object:
        """Return a token to compare with ``==``: it differs when another version of the avatar
        ``name`` is shown. The store is asked only where nothing is known of the avatar, and the
        call waits for that; else the token changes with what ``poll``, ``refresh`` or ``hold`` have
        found out.

        ``name`` may also be that of one version: its token stays the same, as long as anything of
        the avatar is published. The token of one of ``entries`` differs when its files were
        changed; ``need`` are the halves of it that have to be there, and do not matter for
        avatars of the store. Raises InvalidInput where ``name`` cannot be an avatar's, NotFound
        where it is not published (any more) or files of one of ``entries`` are missing, Unavailable
        where nothing is known of it and the store is away.
        """
        name, one = self._parted(name)
        if not one and name in self._entries:
            return self._entries.version(name, need)
        known = self._look(name)
        return ("stored", one or known.version)

    def refresh(self, name: str) -> None:
        """Ask the store which version of the avatar ``name`` is published; that version is then the
        one to be shown, whether it is on this machine or not. Not done again within a second.
        Nothing happens, and nothing is raised, where the store is away or has no such avatar, and
        for avatars of ``entries``. Raises InvalidInput where ``name`` cannot be an avatar's."""
        name, _ = self._parted(name)
        if name not in self._entries:
            with suppress(LipwireError):
                self._look(name, at_most_s=_OFTEN_S, switch=True)

    def hold(self, name: str) -> HeldFiles:
        """Return where the files of the avatar ``name``, which may be that of one version, lie,
        downloaded and pinned; the call waits for the download, and the caller closes what is
        returned.

        Where the store is away and the newest version is not on this machine, one that was shown
        before is returned, if that is here; where ``name`` is that of one version, never another.

        Raises NotFound where the avatar is not published or the store has no such version,
        Unavailable where something is missing here and the store is away, AvatarInvalid where what
        the store has is damaged, Overloaded where too much is open, StorageFailed where the disk or
        the cache's budget is too small, and InvalidInput where ``name`` cannot be an avatar's.
        """
        name, one = self._parted(name)
        if not one and name in self._entries:
            return self._entries.hold(name)
        known = self._look(name, at_most_s=self._poll_s)
        if one:
            return self._held_version(name, one)
        held = self._held(name, known)
        with self._lock:
            known = self._known.setdefault(name, known)
            known.version = held.version
            known.users += 1
        if held.version == known.now.version:
            self._cache.remember(name, known.now)

        def close() -> None:
            with self._lock:
                known.users -= 1
            held.close()

        return HeldFiles(held.files, close, held.measure)

    def choose(self, name: str, who: str) -> Chosen:
        """Return which version of the avatar ``name`` the user ``who`` is shown: the one that is
        published for all, or, where ``who`` is within its share and it is loaded here, the avatar's
        canary. The ``name`` of what is returned is the one under which the version is loaded.
        ``who`` is any text that stays the same for one user; with an empty text it is never the
        canary. Returns at once, by what is known here; the store is not asked."""
        name = canonical_name(name)
        with self._lock:
            known = self._known.get(name)
            canary = None if known is None else known.now.canary
        return Chosen(name, name) if canary is None else self.canaries.choose(name, canary, who)

    def opened_by(self, evict: Callable[[int], list[str]], unload: Callable[[str], object]) -> None:
        """Set two functions that this object calls later, from any thread. ``evict(count)`` is
        called where too much in the cache is open, here or in another process of this machine: it
        has to close up to ``count`` avatars that nobody uses and return their names.
        ``unload(name)`` is called where an avatar is no longer published, for each name under which
        it may be loaded: it has to close the avatar. Until this method is called, nothing is
        closed."""
        self._unload = unload
        self._evict = evict
        self._cache.make_room = lambda: bool(evict(1))

    def tick(self) -> None:
        """Do what is due: ``poll`` every ``poll_s`` seconds, more often while the store is away,
        and have one avatar that nobody uses closed where another process of this machine finds too
        much open. The owner calls it about once a second; it returns when what was due is done,
        which may take as long as the store takes. LipwireErrors are not raised."""
        with suppress(LipwireError):
            if self._cache.index.wanted_bytes():
                self._evict(1)
        now_s = self._clock()
        if now_s >= self._poll_at_s:
            if not self._away or self._store.answers(f"{PUBLISHED}/.probe", _ANSWERS_S):
                self.poll()
            pause_s = min(self._poll_s, _AWAY_S) if self._away else self._poll_s
            self._poll_at_s = self._clock() + pause_s

    def poll(self) -> None:
        """Ask the store what is published: begin to download newer versions of avatars in use here,
        in the background, and have avatars that are no longer published closed and removed from the
        cache. Waits for the store, and for another thread that does the same. LipwireErrors are
        logged, and not raised."""
        with self._polling:
            self._poll()

    def _poll(self) -> None:
        try:
            listed = self._list()
            for name in set(self._cache.names()) - listed.keys():
                self._asked(name)
            for name in [name for name in self._forgetting if not self._cache.forget(name)]:
                self._forgetting.discard(name)
        except LipwireError:
            return
        with self._lock:
            known = dict(self._known)
        for name, each in known.items():
            token = listed.get(name)
            if token is None or each.token != token:
                if not self._asked(name):
                    continue
                each.token = token
                if each.users and each.version == each.now.version:
                    self._cache.remember(name, each.now)
            each.asked_s = self._clock()
            if each.version != each.now.version:
                self._prefetch(name, each)
            if each.now.canary is None:
                self.canaries.ended(name)
            elif each.users:
                self.canaries.make_ready(name, each.now.canary.version)

    # -- the store -------------------------------------------------------------------------------

    def _look(self, name: str, *, at_most_s: float | None = None, switch: bool = False) -> _Known:
        """What is known of ``name``, not older than ``at_most_s`` where the store can be asked.

        A newer version that is published is shown at once with ``switch``, and where nobody uses
        the avatar; else when it is here.
        """
        now_s = self._clock()
        with self._lock:
            known = self._known.get(name)
            if known is not None and (at_most_s is None or now_s - known.asked_s <= at_most_s):
                if switch and not self._away:
                    known.version = known.now.version
                return known
            missed_s = self._missed.get(name)
        if self._away and at_most_s != _ASKED_NOW:  # ``poll`` finds out when it is back
            return self._without_store(name, known, now_s)
        if known is None and missed_s is not None and now_s - missed_s < _OFTEN_S:
            raise _not_there(name)
        try:
            now = published(self._store, name)
        except NotFound:
            with self._lock:
                self._known.pop(name, None)
                self._missed[name] = now_s
                self._missed.move_to_end(name)
                while len(self._missed) > _MISSED_MOST:
                    self._missed.popitem(last=False)
            raise _not_there(name) from None
        except Unavailable as error:
            self._set_away(error)
            return self._without_store(name, known, now_s)
        self._set_away(None)
        with self._lock:
            self._missed.pop(name, None)
            known = self._known.setdefault(name, _Known(now, now.version, now_s))
            known.now, known.asked_s = now, now_s
            if known.version == now.version or switch or not known.users:
                known.version = now.version
                return known
        self._prefetch(name, known)
        return known

    def _without_store(self, name: str, known: _Known | None, now_s: float) -> _Known:
        if known is not None:
            return known
        last = self._cache.remembered(name)
        if last is None:
            raise Unavailable(f"avatar {name} is not in this server's cache, and {self._why}")
        with self._lock:
            return self._known.setdefault(name, _Known(last, last.version, now_s))

    def _held(self, name: str, known: _Known) -> HeldPackage:
        """The version that is to be shown; where it is not here and the store away, another one
        that is."""
        wanted = known.version if known.users else known.now.version
        if self._away and not self._cache.has(name, wanted):
            error = Unavailable(self._why)
        else:
            try:
                return self._cache.hold(self._store, name, wanted)
            except Unavailable as failure:
                error = failure
                self._set_away(error)
        last = self._cache.remembered(name)
        for version in {known.version, known.now.version, wanted if last is None else last.version}:
            if version != wanted and self._cache.has(name, version):
                with suppress(Unavailable):
                    return self._cache.hold(self._store, name, version)
        raise Unavailable(f"avatar {name} is not in this server's cache, and {error}")

    def _held_version(self, name: str, version: str) -> HeldFiles:
        try:
            if self._away and not self._cache.has(name, version):
                raise Unavailable(
                    f"version {version[:SHORT_DIGITS]} of avatar {name} is not in this server's"
                    f" cache, and {self._why}"
                )
            with self._lock:
                self._versions.setdefault(name, set()).add(version)
            held = self._cache.hold(self._store, name, version)
        except LipwireError:
            self.canaries.failed(name, version)
            raise
        return HeldFiles(held.files, held.close, held.measure)

    def _parted(self, name: str) -> tuple[str, str]:
        """An avatar's name, and the version that is asked for; empty for what is published."""
        name, version = parted(name)
        return checked_name(name), version

    def _prefetch(self, name: str, known: _Known) -> None:
        """Bring the published version of an avatar in use here, beside the requests."""
        wanted = known.now

        def bring() -> None:
            try:
                with self._cache.hold(self._store, name, wanted.version):
                    pass
            except LipwireError as error:
                _LOG.warning(
                    "avatar %s: the older version stays: %s", name, error, extra={"model": name}
                )
            else:
                with self._lock:
                    if known.now.version == wanted.version:
                        known.version = wanted.version
                _LOG.info("avatar %s: version %s", name, wanted.version[:12])
            finally:
                with self._lock:
                    self._fetching.pop(name, None)

        with self._lock, suppress(RuntimeError):  # which a closed pool raises
            if name not in self._fetching:
                self._fetching[name] = self._workers.submit(bring)

    def _asked(self, name: str) -> bool:
        """Ask the store what is published of ``name``. False where that cannot be told, and where
        it is no more: then the avatar is forgotten."""
        if self._away:
            return False
        try:
            self._look(name, at_most_s=_ASKED_NOW)
        except NotFound:
            _LOG.info("avatar %s is published no more", name, extra={"model": name})
            self._close_all(name)
            if self._cache.forget(name):
                self._forgetting.add(name)
            return False
        except LipwireError as error:
            _LOG.warning("%s", error, extra={"model": name})
            return False
        return not self._away

    def _close_all(self, name: str) -> None:
        """Have an avatar closed that is published no more, so that its files can be removed."""
        self.canaries.ended(name)
        with self._lock:
            held = self._versions.pop(name, set())
        for each in (name, *(versioned(name, version) for version in held)):
            self._unload(each)

    def _list(self) -> dict[str, tuple[str, ...]]:
        try:
            listed = avatars_in(self._store)
        except LipwireError as error:
            self._set_away(error)
            raise
        self._set_away(None)
        with self._lock:
            self._listed = listed
        return listed

    def _set_away(self, error: LipwireError | None) -> None:
        """Log it once when the store goes away, and once when it is back."""
        with self._lock:
            before, self._away = self._away, error is not None
            self._why = str(error)
        if error is not None and not before:
            _LOG.warning("%s; avatars in the cache are served", error)
        elif error is None and before:
            _LOG.info("the avatar store answers again")


def _not_there(name: str) -> NotFound:
    return NotFound(f"no avatar named {name} is published in the store")
