"""How many frames a second this machine makes, under a short load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from lipwire.cli.doctor.checks import Check, fault, ok, warning

FRAMES: Final = 100
"""Four seconds of video."""
_PER_SESSION: Final = 25.0
"""Frames a second of one live session."""

Speaking = Callable[[], AbstractContextManager[Iterator[object]]]


def speed(
    speaking: Speaking | None = None,
    *,
    frames: int = FRAMES,
    clock: Callable[[], float] = time.perf_counter,
) -> Check:
    """Check that this machine makes at least 25 frames a second, those of one live session, by
    timing how long ``frames`` frames take: WARNING where it is slower, FAULT where no frame can be
    made.

    ``speaking()`` returns a context manager whose ``with`` block gets an iterator that makes the
    frames, as objects of any type; the time of entering it is not counted. None means the demo
    avatar, which says the bundled sentence, as JPEG files.
    ``clock()`` returns seconds.
    """
    from lipwire.domain import LipwireError

    name = "speed"
    wanted = f"{_PER_SESSION:g} frames a second for each live session"
    try:
        with (speaking or _demo)() as made:
            begun_s = clock()
            count = sum(1 for _, _ in zip(range(frames), made, strict=False))
            seconds = clock() - begun_s
    except LipwireError as error:
        return fault(name, str(error), wanted, "lipwire avatar validate demo")
    if not count or seconds <= 0:
        return fault(name, "no frame was made", wanted, "lipwire avatar validate demo")
    rate = count / seconds
    seen = f"{rate:.0f} frames a second of the demo avatar ({count} in {seconds:.1f} s)"
    if rate < _PER_SESSION:
        return warning(
            name, seen, wanted, "use more or faster cores, or a GPU; lipwire bench live says more"
        )
    return ok(name, seen, wanted)


@contextmanager
def _demo() -> Iterator[Iterator[object]]:
    from lipwire.api import open_avatar
    from lipwire.cli.live.speech import default_speech
    from lipwire.cli.terminal import compile_progress

    with (
        compile_progress() as progress,
        open_avatar("demo", outputs=("jpeg",), progress=progress) as avatar,
    ):
        yield (frame.jpeg() for frame in avatar.speak(default_speech()))
