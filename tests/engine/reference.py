"""Plans run by NumPy: what kernels are compared with, block by block.

Sums are float32, and what every layer hands on is rounded to float16, just as in
``lipwire.engine.gpu.compile.halfprecision.rounded``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from lipwire.domain import MASK_COLUMNS, MASK_ROWS, Float32Array, UInt8Array
from lipwire.engine.compile.canonical import serialised
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.lifting import lift
from lipwire.engine.compile.optimising import optimise
from lipwire.engine.compile.sourcemodel import read_model
from lipwire.engine.compile.wrapping import wrap
from lipwire.engine.forms import FACE, MOUTH, SPEECH
from lipwire.engine.gpu.compile.halfprecision import halved, rounded
from lipwire.engine.gpu.compile.hostconstants import host_constants
from lipwire.engine.gpu.kernels.planning.plan import (
    Convolution,
    FullConvolution,
    InvertedResidual,
    Joined,
    Mouth,
    Pixels,
    Plain,
    Plan,
    Source,
    Speech,
)

Float16Array = npt.NDArray[np.float16]
Weights = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Halved:
    """What compiling makes of a network's file for GPUs, whether or not its faces stay the same."""

    graph: bytes
    """As in pixels-half.onnx."""
    weights: dict[str, npt.NDArray[np.generic]]
    rounded: bytes
    """The same network in float32 nodes with its weights in it, rounded after every layer."""


def halve(path: Path, scratch: Path) -> Halved:
    """The graphs of the network in ``path``, without the trials that compiling makes."""
    model = read_model(path)
    info = describe(model, path.name)
    batch = info.fixed_batch
    _, network = optimise(wrap(model.proto, info, "floats", batch), path.name, scratch, "basic")
    inner = replace(info, input_name=FACE, audio_name=SPEECH, output_name=MOUTH)
    half_inner = replace(inner, element_types=("float16", "float16", "float16"))
    wrapped = wrap(halved(network), half_inner, "pixels", batch)
    lifted, weights = lift(wrapped, {name for _, name in host_constants(wrapped.graph)})
    in_steps = wrap(rounded(network), inner, "pixels", batch)
    return Halved(
        serialised(lifted), {weight.name: weight.values for weight in weights}, serialised(in_steps)
    )


@overload
def run(
    plan: Plan, weights: Weights, crop: UInt8Array, speech: Float32Array, *, keep: Literal[True]
) -> tuple[UInt8Array, dict[int, Float16Array]]: ...
@overload
def run(plan: Plan, weights: Weights, crop: UInt8Array, speech: Float32Array) -> UInt8Array: ...
def run(
    plan: Plan,
    weights: Weights,
    crop: UInt8Array,
    speech: Float32Array,
    *,
    keep: bool = False,
) -> UInt8Array | tuple[UInt8Array, dict[int, Float16Array]]:
    """The mouth (320, 320, 3) that ``plan`` makes of a crop (320, 320, 3) and (32, 16, 16).

    With ``keep`` also every tensor (height, width, channels), by its number.
    """
    mouth, tensors = _Run(weights, crop, speech).run(plan)
    return (mouth, tensors) if keep else mouth


class _Run:
    def __init__(self, weights: Weights, crop: UInt8Array, speech: Float32Array) -> None:
        self._weights = weights
        masked = crop.copy()
        masked[MASK_ROWS, MASK_COLUMNS] = 0
        pixels = np.concatenate([crop, masked], axis=2).astype(np.float32)
        self._pixels = _rounded(pixels / np.float32(255))
        self._speech = _rounded(speech.transpose(1, 2, 0))
        self._made: dict[int, Float16Array] = {}

    def run(self, plan: Plan) -> tuple[UInt8Array, dict[int, Float16Array]]:
        for step in plan.steps:
            if isinstance(step, Mouth):
                return self._mouth(step), self._made
            made = self._invert(step) if isinstance(step, InvertedResidual) else self._full(step)
            assert made.shape == (step.out.height, step.out.width, step.out.channels)
            self._made[step.out.number] = made.astype(np.float16)
        raise AssertionError("no step makes the mouth")

    def _read(self, source: Source) -> Float32Array:
        if isinstance(source, Pixels):
            return self._pixels
        if isinstance(source, Speech):
            return self._speech
        if isinstance(source, Plain):
            return self._made[source.tensor.number].astype(np.float32)
        assert isinstance(source, Joined)
        first, second = (
            self._made[tensor.number].astype(np.float32) for tensor in (source.first, source.second)
        )
        return np.concatenate([_doubled(first) if source.doubled else first, second], axis=2)

    def _invert(self, step: InvertedResidual) -> Float32Array:
        source = self._read(step.source)
        wide = np.maximum(self._pointwise(step.expand, source), 0)
        wide = np.maximum(self._depthwise(step.depthwise, wide, step.stride), 0)
        made = self._pointwise(step.project, wide)
        return _rounded(source + made) if step.add else made

    def _full(self, step: FullConvolution) -> Float32Array:
        kernel, bias = self._of(step.convolution)  # (outputs, inputs, 3, 3)
        windows = _windows(self._read(step.source), step.padding, step.stride)
        made = sum(
            window @ kernel[:, :, row, column].T for (row, column), window in windows.items()
        )
        made = _rounded(made + bias)
        return np.maximum(made, 0) if step.relu else made

    def _mouth(self, step: Mouth) -> UInt8Array:
        made = self._pointwise(step.convolution, self._read(Plain(step.source)))
        if step.ending == "sigmoid":
            made = _rounded(1 / (1 + np.exp(-made)))
        elif step.ending == "clip":
            made = np.clip(made, 0, 1)
        pixels: UInt8Array = np.rint(np.clip(made * 255, 0, 255)).astype(np.uint8)
        return pixels

    def _pointwise(self, convolution: Convolution, x: Float32Array) -> Float32Array:
        kernel, bias = self._of(convolution)
        return _rounded(x @ kernel[:, :, 0, 0].T + bias)

    def _depthwise(self, convolution: Convolution, x: Float32Array, stride: int) -> Float32Array:
        kernel, bias = self._of(convolution)  # (channels, 1, 3, 3)
        windows = _windows(x, 1, stride)
        made = sum(window * kernel[:, 0, row, column] for (row, column), window in windows.items())
        return _rounded(made + bias)

    def _of(self, convolution: Convolution) -> tuple[Float32Array, Float32Array]:
        kernel = self._weights[convolution.weight].astype(np.float32)
        if convolution.bias is None:
            return kernel, np.zeros(convolution.outputs, np.float32)
        return kernel, self._weights[convolution.bias].astype(np.float32)


def _rounded(x: npt.NDArray[Any]) -> Float32Array:
    half: Float32Array = x.astype(np.float16).astype(np.float32)
    return half


def _windows(x: Float32Array, padding: int, stride: int) -> dict[tuple[int, int], Float32Array]:
    """What each of the nine places of a 3x3 kernel sees, by (row, column)."""
    padded = np.pad(x, ((padding, padding), (padding, padding), (0, 0)))
    height, width = ((size - 3) // stride + 1 for size in padded.shape[:2])
    return {
        (row, column): padded[row:, column:][: height * stride : stride, : width * stride : stride]
        for row in range(3)
        for column in range(3)
    }


def _doubled(x: Float32Array) -> Float32Array:
    """Twice as high and wide: bilinear, corners aligned."""
    for axis in (0, 1):
        size = x.shape[axis]
        places = np.arange(2 * size, dtype=np.float32) * np.float32((size - 1) / (2 * size - 1))
        low = np.floor(places).astype(np.intp)
        share = (places - low).reshape(-1, *[1] * (2 - axis))
        high = np.minimum(low + 1, size - 1)
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return _rounded(x)
