"""What "the picture is right" means to the mouth renderer."""

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 0.15
"""Weight of a pixel far from anything that moves, where the base picture is the answer already."""

MOVED = 6.0 / 255.0
"""A change of this size (mean of the channels) makes a pixel count in full."""

EDGE_WEIGHT = 1.0
"""How much the differences between neighbours count: lip and tooth edges must be sharp."""


SQUARED_WEIGHT = 8.0
"""How much the squared error counts. With the absolute error alone training stood still at "nothing
moves": far from any edge that is the median of what a pixel may become."""


def change_weights(base: Tensor, target: Tensor) -> Tensor:
    """Return weights of pixels, (N, 1, H, W) float32 with mean 1 in each picture: large where the
    target differs from the base, and near such pixels.

    ``base`` and ``target`` are (N, 3, H, W) float32 in [0, 1]; H and W are multiples of 4.
    """
    change = functional.avg_pool2d((target - base).abs().mean(1, keepdim=True), 4)
    near = functional.max_pool2d((change / MOVED).clamp(max=1.0), 5, 1, 2)
    weights = FLOOR + functional.interpolate(near, scale_factor=4.0, mode="nearest")
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


def picture_loss(output: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Return the loss of the pictures ``output`` against ``target``, a scalar tensor that can be
    differentiated.

    Both are (N, 3, H, W) float32, usually in [0, 1]; ``weights``, (N, 1, H, W) float32, say how
    much each of their pixels counts, on average 1. The loss is the weighted mean of the absolute
    error and 8 times the squared error, plus the weighted means of the absolute errors of the
    differences between neighbouring pixels, across and down.
    """
    error = output - target
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * weights[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    pixels = ((error.abs() + SQUARED_WEIGHT * error.square()) * weights).mean()
    return pixels + EDGE_WEIGHT * (across.mean() + down.mean())


def peak_signal_to_noise_db(output: Tensor, target: Tensor, weights: Tensor | None = None) -> float:
    """Return the peak signal to noise ratio of ``output`` against ``target``, in dB over the whole
    batch, at most 100.

    Both are (N, 3, H, W) float32; ``target`` is in [0, 1], and ``output`` is clipped to it. With
    ``weights``, (N, 1, H, W) with mean 1, only pixels count whose weight is 1 or more.
    """
    squared = (output.clamp(0, 1) - target).square()
    if weights is None:
        error = squared.mean()
    else:
        inside = (weights >= 1.0).to(squared.dtype).expand_as(squared)
        error = (squared * inside).sum() / inside.sum().clamp(min=1.0)
    return float(-10.0 * torch.log10(error.clamp(min=1e-10)))
