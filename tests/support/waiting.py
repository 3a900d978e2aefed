"""Waiting for what another thread or process brings about, and time that tests move themselves."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final

WAIT_S: Final = 120.0
"""For what comes in a moment, unless the machine is busy with something else."""

_FIRST_PAUSE_S: Final = 0.0005
_LONGEST_PAUSE_S: Final = 0.02


class Clock:
    """Seconds that pass when told to: ``clock.now += 5``."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def until(
    condition: Callable[[], object],
    *,
    timeout_s: float = WAIT_S,
    futures: Iterable[Future[Any]] = (),
    seen: Callable[[], object] = lambda: "",
) -> None:
    """Return as soon as ``condition()`` holds. It is asked again and again, in this thread.

    Where one of ``futures`` fails first, its error is raised. Raises AssertionError after
    ``timeout_s``, with what ``seen()`` gives and where every thread is.
    """
    end_s, pause_s = time.monotonic() + timeout_s, _FIRST_PAUSE_S
    watched = list(futures)
    while not condition():
        for future in watched:
            if future.done():
                future.result()
        if time.monotonic() > end_s:
            raise AssertionError(f"not so within {timeout_s:g} s; {seen()}\n{stacks()}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def stacks() -> str:
    """Where every thread of this process is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
