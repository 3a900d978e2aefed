"""Versions that are published for a share of those who use an avatar: who is shown them, and when.

unknown ──▶ under way ──▶ ready: shown to its share
   ▲             └──▶ failed: nobody is shown it ──▶ tried again after a while
   └── another version is the canary

A server shows a canary once it is here and loaded, so that nobody waits for that; until then its
share is shown the version that is published for all.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Final

from lipwire.avatars.store.layout import Canary
from lipwire.domain import LipwireError
from lipwire.domain.versions import Chosen, in_share, versioned

_LOG: Final = logging.getLogger("lipwire.avatars")
_AGAIN_S: Final = 30.0
"""After so long a canary that could not be loaded is tried again."""


class Canaries:
    """Which canaries (versions that are published for a share of an avatar's users) this process
    has loaded, and who is shown one. Thread-safe. ``load`` is to be set: it is called with the name
    that a version is loaded under, "NAME:VERSION", in one of the workers, and has that version
    downloaded and loaded. While it is None no canary is shown."""

    def __init__(self, workers: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        """Canaries are loaded in ``workers``, which stay the caller's. ``clock`` gives seconds."""
        self.load: Callable[[str], object] | None = None
        """Called with the name that a version is loaded under, which has it downloaded and loaded.
        Where it is None, no canary is shown."""
        self._workers = workers
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._ready: dict[str, str] = {}
        """By avatar the version of its canary that is loaded."""
        self._failed: dict[str, tuple[str, float]] = {}
        """By avatar the version of its canary that could not be loaded, and until when it is left
        alone."""

    def choose(self, name: str, canary: Canary, who: str) -> Chosen:
        """Return which version of the avatar ``name`` the user ``who`` is shown: ``canary``, which
        is published for a share of the users, or the version that is published for all. The
        ``name`` of what is returned is the one under which that version is loaded. ``who`` is any
        text that stays the same for one user; whether it is within the share depends on the text,
        the avatar's name and the canary alone, so that every process decides the same. An empty
        text is never shown the canary.

        Returns at once: where the canary is not loaded here, loading it is begun in the workers,
        and ``who`` is shown the version that is published for all.
        """
        published = Chosen(name, name, "published")
        if not who or not in_share(canary.share, name, canary.version, who):
            return published
        if self._ready.get(name) == canary.version:
            return Chosen(name, versioned(name, canary.version), "canary")
        self.make_ready(name, canary.version)
        return published

    def make_ready(self, name: str, version: str) -> None:
        """Begin to load ``version`` of the avatar ``name`` in the workers, unless it is loaded, a
        version of the avatar is being loaded already, it could not be loaded within the last 30
        seconds, or ``load`` is None. Returns at once; a failure is logged, and noted as if
        ``failed`` had been called."""
        if self.load is None:
            return
        with self._lock:
            left_alone = self._failed.get(name, ("", 0.0))
            if (
                name in self._under_way
                or self._ready.get(name) == version
                or (left_alone[0] == version and self._clock() < left_alone[1])
            ):
                return
            with suppress(RuntimeError):  # which a closed pool raises
                self._workers.submit(self._load, name, version, self.load)
                self._under_way.add(name)

    def failed(self, name: str, version: str) -> None:
        """Note that ``version`` of the avatar ``name`` cannot be loaded, or not any more: where it
        is the avatar's canary, nobody is shown it for 30 seconds; then it is tried again."""
        with self._lock:
            if self._ready.get(name) == version:
                del self._ready[name]
            self._failed[name] = version, self._clock() + _AGAIN_S

    def ended(self, name: str) -> None:
        """Forget the canary of the avatar ``name``, if it had one: nobody is shown it any more."""
        with self._lock:
            self._ready.pop(name, None)
            self._failed.pop(name, None)

    def counts(self) -> dict[str, int]:
        """Return the number of avatars whose canary is loaded here (key "shown"), and of those
        whose canary could not be loaded when it was last tried ("failed")."""
        with self._lock:
            return {"shown": len(self._ready), "failed": len(self._failed)}

    def _load(self, name: str, version: str, load: Callable[[str], object]) -> None:
        extra = {"model": name}
        try:
            load(versioned(name, version))
        except LipwireError as error:
            self.failed(name, version)
            _LOG.warning(
                "avatar %s: the canary %s is not shown: %s", name, version[:12], error, extra=extra
            )
        else:
            with self._lock:
                self._ready[name] = version
                self._failed.pop(name, None)
            _LOG.info("avatar %s: the canary %s is shown", name, version[:12], extra=extra)
        finally:
            with self._lock:
                self._under_way.discard(name)
