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
    """Which canaries this process has ready, and who is shown one. Thread-safe."""

    def __init__(self, workers: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        """Canaries are made ready in ``workers``. ``clock`` gives seconds."""
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
        """Return what ``who`` is shown of the avatar ``name``, of which some are shown ``canary``:
        the same for the same text and canary in every process that has the canary ready. An empty
        text stands for anybody, who is not shown it. Where it is not ready that is begun."""
        published = Chosen(name, name, "published")
        if not who or not in_share(canary.share, name, canary.version, who):
            return published
        if self._ready.get(name) == canary.version:
            return Chosen(name, versioned(name, canary.version), "canary")
        self.make_ready(name, canary.version)
        return published

    def make_ready(self, name: str, version: str) -> None:
        """Have ``version`` of the avatar ``name`` loaded, beside the requests, unless it is, or
        could not be a moment ago."""
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
        """Note that ``version`` of the avatar ``name`` cannot be loaded (any more): where it is a
        canary, nobody is shown it for a while."""
        with self._lock:
            if self._ready.get(name) == version:
                del self._ready[name]
            self._failed[name] = version, self._clock() + _AGAIN_S

    def ended(self, name: str) -> None:
        """Note that the avatar ``name`` has no canary (any more)."""
        with self._lock:
            self._ready.pop(name, None)
            self._failed.pop(name, None)

    def counts(self) -> dict[str, int]:
        """Return how many canaries are ``shown``, and how many could not be loaded (``failed``)."""
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
