"""The figures of an evaluation, on made-up curves and pictures with known answers."""

import numpy as np
import pytest

from lipwire.domain import CropRect
from lipwire.evaluation.figures import (
    correlation,
    lag_frames,
    mean_psnr_db,
    psnr_db,
    seam_levels,
    share_closed,
    squared_errors,
)


def curve(seed: int, count: int = 200) -> np.ndarray:
    """Smooth noise, as mouths move."""
    noise = np.random.default_rng(seed).normal(size=count + 8)
    return np.convolve(noise, np.hanning(9), "valid").astype(np.float32)


@pytest.mark.parametrize("shift", [-3, 0, 1, 4])
def test_a_curve_that_runs_behind_is_found(shift: int) -> None:
    long = curve(1, 220)
    reference, late = long[10:210], long[10 - shift : 210 - shift]

    assert lag_frames([late], [reference]) == pytest.approx(shift, abs=0.1)


def test_half_a_frame_is_found_too() -> None:
    long = curve(2, 220)
    late = (long[9:209] + long[10:210]) / 2

    assert lag_frames([late], [long[10:210]]) == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("count", [1, 3, 7, 9, 23])
def test_a_few_frames_tell_of_no_lag(count: int) -> None:
    short = curve(3, count)
    assert lag_frames([short], [short]) == 0.0
    assert lag_frames([short, curve(1, 100)], [short, curve(1, 100)]) == pytest.approx(0, abs=0.1)


def test_correlation_of_a_flat_curve_is_zero() -> None:
    assert correlation(np.zeros(10, np.float32), curve(0, 10)) == 0.0
    assert correlation(curve(0, 50), 3 * curve(0, 50) + 2) == pytest.approx(1.0)


def test_errors_count_inside_the_box_only() -> None:
    truth = np.zeros((2, 20, 20, 3), np.uint8)
    made = truth.copy()
    made[1, 5:10, 5:10] = 10
    made[:, 0] = 255

    errors = squared_errors(made, truth, CropRect(5, 5, 10, 10))

    np.testing.assert_allclose(errors, [0.0, 100.0])
    assert psnr_db(100.0) == pytest.approx(28.13, abs=0.01)
    assert psnr_db(0.0) == 99.0
    apart = mean_psnr_db(np.array([100.0, 1.0], np.float32))
    assert apart == pytest.approx((28.13 + 48.13) / 2, abs=0.01)


def test_a_seam_is_a_step_that_the_background_does_not_have() -> None:
    background = np.full((40, 40, 3), 100, np.uint8)
    background[:, 10:] = 150  # a step that was there before does not count
    rect = CropRect(10, 10, 30, 30)
    clean, brighter = background.copy(), background.copy()
    brighter[10:30, 10:30] += 7

    assert seam_levels(clean, background, rect).max() == 0
    found = seam_levels(brighter, background, rect)
    assert len(found) == 80
    assert set(found.tolist()) == {7.0}


def test_a_border_on_the_edge_of_the_frame_has_nothing_beside_it() -> None:
    frame = np.full((20, 20, 3), 100, np.uint8)

    assert len(seam_levels(frame, frame, CropRect(0, 0, 10, 10))) == 20
    assert seam_levels(frame, frame, CropRect(0, 0, 20, 20)).max() == 0


def test_a_closure_counts_when_the_lips_meet_once_in_it() -> None:
    opening = np.array([5, 1, 5, 5, 5, 5], np.float32)

    assert share_closed(opening, ((0, 3), (3, 6)), 2.0) == 0.5
    assert np.isnan(share_closed(opening, (), 2.0))
