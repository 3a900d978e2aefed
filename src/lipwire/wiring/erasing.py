"""Forgetting a person while the server runs."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from lipwire.avatars.erasing import Kept, erase, kept_of, package_of
from lipwire.avatars.packages import Packages
from lipwire.domain import Call, LipwireError
from lipwire.registry import Registry
from lipwire.renders import Renders
from lipwire.serving import Backend, LoadedAvatar
from lipwire.session.live import LiveSessions, LiveThreads

_UNLOAD_TIMEOUT_S: Final = 10.0
_LOOK_EVERY_S: Final = 2.0
_MISSED_TIMES: Final = 2
"""An avatar that is missed so often in a row is gone; once, it may be being replaced."""


def erasing(
    catalog: Packages,
    avatars: Registry[LoadedAvatar],
    backend: Backend,
    sessions: LiveSessions,
    *,
    renders: Renders | None = None,
) -> Callable[[str, bool], Sequence[Kept]]:
    """Return a function ``removed(name, dry_run)``, which removes all that is kept of the avatar
    ``name`` on this machine, and returns what was removed, a ``Kept`` for each folder. Where
    ``dry_run`` is True it removes nothing, and returns what would be removed.

    ``catalog`` says where the avatar lies. ``avatars`` and ``backend`` may have it loaded and then
    unload it, and ``sessions`` that show it are ended. Videos of it in ``renders`` are removed;
    None where the server makes none. Other processes of the server notice within seconds. The
    function raises NotFound where there is no such avatar, InvalidInput where it cannot be removed
    (its files lie in several places, its folder is a link, it came with Lipwire), and StorageFailed
    where the disk refuses. After StorageFailed, too, the sessions are ended and the avatar is
    unloaded.
    """

    def removed(name: str, dry_run: bool) -> Sequence[Kept]:
        found = kept_of(package_of(name, catalog.files(name)))
        made = [] if renders is None else _renders_of(renders, name)
        if dry_run:
            return [*made, *found]
        # Whatever fails: what is in memory goes, and nobody is shown any more.
        with ExitStack() as stack:
            stack.callback(unload_from_backend, name)
            stack.callback(avatars.unload, name)
            stack.callback(sessions.end_all_of, name)
            if renders is not None:
                renders.remove_all(avatar=name)
            for each in found:
                erase(each)
        return [*made, *found]

    def unload_from_backend(name: str) -> None:
        with suppress(LipwireError):  # nobody finds it any more, and what is not used is evicted
            backend.unload(name, call=Call(_UNLOAD_TIMEOUT_S))

    return removed


def _renders_of(renders: Renders, name: str) -> list[Kept]:
    held = renders.held(name)
    if not held.renders:
        return []
    return [Kept(renders.folder, "renders", held.renders, held.size_bytes)]


class GoneAvatars:
    """Ends the live sessions whose avatar is not there any more, because another process or a
    person has erased it. A ``Pacer`` calls ``on_due`` every two seconds; an avatar that is missing
    twice in a row counts as erased."""

    def __init__(
        self, sessions: LiveSessions, exists: Callable[[str], bool], workers: Executor
    ) -> None:
        """``exists`` says whether there is an avatar of a name; it is called in ``workers``, as it
        looks at a disk."""
        self._sessions = sessions
        self._exists = exists
        self._workers = workers
        self._missed: dict[str, int] = {}
        self._looking = False

    def on_due(self, now: float) -> float:
        """Have a worker look for erased avatars, unless one is still looking or there are no
        sessions. Returns, without waiting for it, the time at which this is to be called again, two
        seconds after ``now``; both are seconds of the pacer's clock."""
        if self._sessions.shown() and not self._looking:
            self._looking = True
            self._workers.submit(self._look)
        return now + _LOOK_EVERY_S

    def _look(self) -> None:
        try:
            shown = self._sessions.shown()
            self._missed = {
                name: self._missed.get(name, 0) + 1 for name in shown if not self._exists(name)
            }
            for name, times in self._missed.items():
                if times >= _MISSED_TIMES:
                    self._sessions.end_all_of(name)
        finally:
            self._looking = False


@contextmanager
def watching_for_gone(
    sessions: LiveSessions, exists: Callable[[str], bool], threads: LiveThreads
) -> Iterator[None]:
    """End the ``sessions`` of avatars that are not there any more, within some four seconds, during
    the ``with`` block. A context manager. ``exists(name)`` says whether there is an avatar of that
    name; it is called in a worker of ``threads``, every two seconds."""
    watch = GoneAvatars(sessions, exists, threads.workers)
    threads.pacer.add(watch, time.monotonic() + _LOOK_EVERY_S)
    try:
        yield
    finally:
        threads.pacer.remove(watch)
