from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.waiting import Clock

from lipwire.cli.doctor.checks import Outcome
from lipwire.cli.doctor.speed import Speaking, speed
from lipwire.domain import NotFound


def speaking(clock: Clock, frames: int, frame_s: float) -> Speaking:
    """Frames that take ``frame_s`` each, after ten seconds in which the avatar is opened."""

    def made() -> Iterator[object]:
        for index in range(frames):
            clock.now += frame_s
            yield index

    @contextmanager
    def opened() -> Iterator[Iterator[object]]:
        clock.now += 10
        yield made()

    return opened


@pytest.mark.parametrize(
    ("frames", "frame_s", "seen", "outcome"),
    [
        (1000, 0.01, "100 frames a second of the demo avatar (50 in 0.5 s)", Outcome.OK),
        (1000, 0.1, "10 frames a second of the demo avatar (50 in 5.0 s)", Outcome.WARNING),
        (30, 0.01, "100 frames a second of the demo avatar (30 in 0.3 s)", Outcome.OK),
        (0, 0.01, "no frame was made", Outcome.FAULT),
    ],
)
def test_frames_are_counted_and_timed(
    frames: int, frame_s: float, seen: str, outcome: Outcome
) -> None:
    clock = Clock()
    check = speed(speaking(clock, frames, frame_s), frames=50, clock=clock)
    assert (check.seen, check.outcome) == (seen, outcome)


def test_an_avatar_that_cannot_be_opened_is_a_fault() -> None:
    def gone() -> object:
        raise NotFound("no avatar named demo")

    check = speed(gone)  # type: ignore[arg-type]
    assert (check.outcome, check.seen) == (Outcome.FAULT, "no avatar named demo")
