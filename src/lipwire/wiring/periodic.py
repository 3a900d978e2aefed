"""Work that a server does now and then: giving up what is idle, saying how its caches do."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_LEAVE_S: Final = 5.0
_logger = logging.getLogger("lipwire.wiring")


@contextmanager
def every(seconds: float, work: Callable[[], object], name: str) -> Iterator[None]:
    """Call ``work`` every ``seconds`` in a thread of its own for as long as the block lasts.

    An error of it is logged and does not end it. Work under way is waited for, but not for ever: a
    driver or a disk that hangs must not keep a server from ending.
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
