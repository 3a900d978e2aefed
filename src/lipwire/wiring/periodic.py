"""Work that a server does at intervals: evicting what is idle, and logging numbers of its
registries."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from lipwire.registry import Registry

STATS_EVERY_S: Final = 60.0
_LONGEST_SWEEP_S: Final = 30.0
_LEAVE_S: Final = 5.0
_logger = logging.getLogger("lipwire.wiring")
_stats_logger = logging.getLogger("lipwire.avatars")


@contextmanager
def every(seconds: float, work: Callable[[], object], name: str) -> Iterator[None]:
    """Call ``work()`` every ``seconds``, for the first time ``seconds`` after the beginning, in a
    thread of its own during the ``with`` block. A context manager. ``name`` says in the log what
    the work is.

    An exception of ``work`` is logged, and ``work`` is called again later. At the end of the block
    a call that is under way is waited for, 5 s at most, because a driver or a disk that hangs must
    not keep a server from ending.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            try:
                work()
            except Exception:
                _logger.exception("%s failed", name)

    thread = threading.Thread(target=run, name=f"lipwire-{name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LEAVE_S)


@contextmanager
def sweeping(sweep: Callable[[], object], idle_s: float | None) -> Iterator[None]:
    """Call ``sweep()``, which closes what has been idle for ``idle_s`` seconds, in a thread of its
    own during the ``with`` block: every quarter of that time, but at least every 30 s. A context
    manager. Where ``idle_s`` is None it is not called."""
    if idle_s is None:
        yield
        return
    with every(min(_LONGEST_SWEEP_S, max(0.05, idle_s / 4)), sweep, "giving up idle avatars"):
        yield


@contextmanager
def logging_stats(what: str, registry: Registry[Any]) -> Iterator[None]:
    """Log the numbers of ``registry`` once a minute during the ``with`` block. A context manager.
    ``what`` is the name of its items, such as "avatars open", which follows their number in the
    line."""

    def log() -> None:
        stats = registry.stats()
        asked = stats.hits + stats.misses
        figures = {
            "held": len(stats.items),
            "bytes": stats.bytes,
            "hits": stats.hits,
            "misses": stats.misses,
            "evictions": stats.evictions,
            "failures": stats.failures,
        }
        _stats_logger.info(
            "%d %s, %.1f MB; %d requests, %.2f %% hits, %d evictions, %d failures",
            len(stats.items),
            what,
            stats.bytes / 1e6,
            asked,
            100 * stats.hits / asked if asked else 100.0,
            stats.evictions,
            stats.failures,
            extra={"cache": what, **figures},
        )

    with every(STATS_EVERY_S, log, "cache statistics"):
        yield
