import pytest

from lipwire.session.live.framegrid import FrameGrid

START_S = 1000.0


def grid_of(phase_s: float = 0.0) -> FrameGrid:
    grid = FrameGrid()
    grid.start(START_S)
    if phase_s:
        grid.align(0, START_S + phase_s)
    return grid


def test_frames_are_40_ms_apart() -> None:
    grid = grid_of()
    assert [grid.due_s(frame) for frame in (0, 1, 25)] == [START_S, START_S + 0.04, START_S + 1.0]


@pytest.mark.parametrize("phase_s", [0.0, 0.015, -0.02])
@pytest.mark.parametrize("ready_ms", range(200, 260, 3))
def test_a_frame_is_due_when_speech_is_ready(phase_s: float, ready_ms: int) -> None:
    grid = grid_of(phase_s)
    ready_s = START_S + ready_ms / 1000
    frame = grid.align(2, ready_s)
    assert frame >= 2
    assert grid.due_s(frame) == pytest.approx(ready_s, abs=1e-9)
    assert abs(grid.phase_s - phase_s) <= 0.02 + 1e-9


@pytest.mark.parametrize("moves_ms", [(15, 15, 15), (-15, -15, -15), (19, 19, 19, 19, -19)])
def test_however_it_is_moved_frames_stay_within_one(moves_ms: tuple[int, ...]) -> None:
    grid = grid_of()
    for number, ms in enumerate(moves_ms, 1):
        ready_s = grid.due_s(10 * number) + ms / 1000
        assert grid.due_s(grid.align(10 * number - 2, ready_s)) == pytest.approx(ready_s, abs=1e-9)
        assert abs(grid.phase_s) < 0.04


def test_what_is_ready_before_the_next_frame_moves_nothing() -> None:
    grid = grid_of(0.01)
    assert grid.align(10, START_S + 0.3) == 10
    assert grid.phase_s == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("phase_s", "earlier_s", "moved_s"),
    [
        (0.0, 0.01, 0.01),
        (0.0, 0.024, 0.024),
        (0.0, 0.035, 0.025),  # the frame before lasts 15 ms at least
        (0.0, -0.01, 0.0),  # later
        (-0.02, 0.015, 0.015),
        (-0.02, 0.021, 0.0),  # that would be a whole frame
    ],
)
def test_a_frame_comes_as_early_as_it_may(phase_s: float, earlier_s: float, moved_s: float) -> None:
    grid = grid_of(phase_s)
    due_s = grid.due_s(50)
    grid.shorten(50, due_s - earlier_s)
    assert due_s - grid.due_s(50) == pytest.approx(moved_s, abs=1e-9)


def test_any_number_of_moves_stays_below_a_frame() -> None:
    grid = grid_of()
    for frame in range(0, 5000, 10):
        first = grid.align(frame, grid.due_s(frame) + frame * 0.0137 % 0.5)
        grid.shorten(first, grid.due_s(first) - 0.011)
        assert abs(grid.phase_s) < 0.04
