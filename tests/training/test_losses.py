"""What counts as an error of a picture."""

import pytest

torch = pytest.importorskip("torch")

from lipwire.training.losses import (  # noqa: E402
    change_weights,
    peak_signal_to_noise_db,
    picture_loss,
)


def test_what_moves_weighs_more_and_the_mean_is_one() -> None:
    base = torch.full((1, 3, 64, 64), 0.5)
    target = base.clone()
    target[..., 28:36, 28:36] = 0.9

    weights = change_weights(base, target)

    assert weights.mean().item() == pytest.approx(1.0)
    assert weights[0, 0, 32, 32] > 5 * weights[0, 0, 2, 2] > 0


def test_a_blurred_edge_costs_more_than_the_same_error_spread_evenly() -> None:
    target = torch.zeros(1, 3, 32, 32)
    target[..., 16:] = 1.0
    blurred = target.clone()
    blurred[..., 15], blurred[..., 16] = 0.25, 0.75
    even = target + (blurred - target).abs().mean()
    flat = torch.ones(1, 1, 32, 32)

    assert picture_loss(blurred, target, flat) > 1.5 * picture_loss(even, target, flat)


def test_signal_to_noise_of_a_known_error() -> None:
    target = torch.full((1, 3, 16, 16), 0.5)

    assert peak_signal_to_noise_db(target + 0.1, target) == pytest.approx(20.0, abs=1e-4)


def test_signal_to_noise_looks_where_the_weights_are() -> None:
    target = torch.full((1, 3, 16, 16), 0.5)
    output = target.clone()
    output[..., :8] += 0.1
    weights = torch.full((1, 1, 16, 16), 0.5)
    weights[..., :8] = 1.5

    assert peak_signal_to_noise_db(output, target, weights) == pytest.approx(20.0, abs=1e-4)
