"""The idle loop."""

import numpy as np
import pytest

from lipwire.domain import ping_pong
from studio.motion import BLINKS, FRAMES, GLANCES, Pose, pose


def moving(p: Pose) -> np.ndarray:
    """All that moves in waves, (7,)."""
    return np.array([p.yaw, p.pitch, p.roll, *p.shift, p.breath / 50, p.brow / 50])


TRACK = np.stack([moving(pose(frame)) for frame in range(FRAMES)])


def test_the_loop_stands_still_at_both_ends() -> None:
    """Back and forth, the speed turns round there: it has to be next to nothing."""
    steps = np.abs(np.diff(TRACK, axis=0))
    assert (steps[0] < 0.12 * steps.max(axis=0)).all()
    assert (steps[-1] < 0.12 * steps.max(axis=0)).all()


def test_the_loop_is_smooth_where_it_turns() -> None:
    shown = [ping_pong(i, FRAMES) for i in range(3 * FRAMES)]
    bends = np.abs(np.diff(TRACK[shown], 2, axis=0)).max(axis=0)
    inside = np.abs(np.diff(TRACK, 2, axis=0)).max(axis=0)
    assert (bends <= 1.05 * inside).all()


def test_nothing_jumps() -> None:
    steps = np.abs(np.diff(TRACK, axis=0)).max(axis=0)
    assert (steps < 0.2 * np.ptp(TRACK, axis=0)).all()


def test_the_head_turns_a_little() -> None:
    yaw = np.degrees(TRACK[:, 0])
    assert 3 < np.ptp(yaw) < 12


@pytest.mark.parametrize(("first", "length"), BLINKS)
def test_a_blink_closes_and_opens_again(first: int, length: int) -> None:
    lids = [pose(frame).lid for frame in range(first - 1, first + length + 1)]
    assert lids[0] == lids[-1] == 0
    assert max(lids) > 0.95
    assert max(lids) <= 1
    top = int(np.argmax(lids))
    assert (np.diff(lids[: top + 1]) > 0).all()


def test_the_eyes_are_open_and_straight_at_both_ends() -> None:
    for frame in (0, FRAMES - 1):
        assert pose(frame).lid == 0
        assert pose(frame).gaze == (0.0, 0.0)


def test_glances_arrive() -> None:
    first, right, up = GLANCES[0]
    assert pose(first - 1).gaze == (0.0, 0.0)
    assert 0 < pose(first).gaze[0] < right
    assert pose(first + 10).gaze == pytest.approx((right, up))


def test_a_loop_of_one_frame_has_a_pose() -> None:
    assert np.isfinite(moving(pose(0, 1))).all()
