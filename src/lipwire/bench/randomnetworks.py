"""Networks with random weights, in the guide's shapes, written without PyTorch.

They stand in for an avatar's network where only shape and cost matter: benchmarks and tests.
``write_unet`` has the layers of the SyncTalk_2D family's U-Net in its 'ave' form
(https://github.com/ZiqiaoPeng/SyncTalk_2D, ``unet_328.py``), with batch normalisation folded into
the convolutions, as an exporter leaves it.
"""

from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipwire.domain import AUDIO_WINDOW_SHAPE, FEATURE_SIZE, MOUTH_PX

FULL_WIDTHS: Final = (32, 64, 128, 256, 512)
MOBILE_WIDTHS: Final = (16, 32, 64, 128, 256)
"""Channels of the five resolutions: as published, and the variant for small machines."""

Widths = tuple[int, int, int, int, int]
Ending = Literal["sigmoid", "clip", "none"]

_IR_VERSION: Final = {
    opset: 6 if opset < 13 else 8 if opset < 19 else 10 for opset in range(11, 25)
}


class _Layers:
    """Collects nodes and random weights; every method returns the name of the value it makes."""

    def __init__(self, seed: int, *, prefix: str, opset: int, constant_nodes: bool) -> None:
        self._random = np.random.default_rng(seed)
        self._prefix = prefix
        self._constant_nodes = constant_nodes
        self._made = 0
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        self._made += 1
        name = output or f"{self._prefix}{op.lower()}_{self._made}"
        self.nodes.append(
            helper.make_node(op, list(inputs), [name], f"{self._prefix}n{self._made}", **attributes)
        )
        return name

    def constant(self, values: npt.NDArray[np.float32]) -> str:
        self._made += 1
        name = f"{self._prefix}w{self._made}"
        tensor = numpy_helper.from_array(values, name)
        if self._constant_nodes:
            self.node("Constant", output=name, value=tensor)
        else:
            self.initializers.append(tensor)
        return name

    def conv(
        self,
        x: str,
        inp: int,
        out: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        pad: int = 0,
        groups: int = 1,
        gain: float = 1.0,
    ) -> str:
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = (out, inp // groups, rows, columns)
        spread = np.sqrt(gain / np.prod(shape[1:]))
        weight = (self._random.standard_normal(shape) * spread).astype(np.float32)
        bias = (self._random.standard_normal(out) * 0.1).astype(np.float32)
        return self.node(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            kernel_shape=[rows, columns],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )

    def inverted_residual(
        self, x: str, inp: int, out: int, *, stride: int = 1, add: bool = False
    ) -> str:
        """1x1 up, 3x3 depthwise, 1x1 down, with an expansion of two."""
        wide = 2 * inp
        y = self.node("Relu", self.conv(x, inp, wide, gain=2.0))
        y = self.conv(y, wide, wide, 3, stride=stride, pad=1, groups=wide, gain=2.0)
        y = self.conv(self.node("Relu", y), wide, out, gain=0.5 if add else 1.0)
        return self.node("Add", x, y) if add else y

    def pair(self, x: str, inp: int, out: int, *, stride: int = 1) -> str:
        x = self.inverted_residual(x, inp, out, stride=stride)
        return self.inverted_residual(x, out, out, add=True)

    def double(self, x: str) -> str:
        """Twice the height and width, bilinear, corners aligned."""
        roi = "" if self.opset >= 13 else self.constant(np.zeros(0, np.float32))
        scales = self.constant(np.array([1, 1, 2, 2], np.float32))
        mode = "align_corners"
        return self.node(
            "Resize", x, roi, scales, mode="linear", coordinate_transformation_mode=mode
        )

    def end(self, x: str, ending: Ending, output: str) -> None:
        if ending == "sigmoid":
            self.node("Sigmoid", x, output=output)
        elif ending == "clip":
            low, high = (self.constant(np.array(v, np.float32)) for v in (0.0, 1.0))
            self.node("Clip", x, low, high, output=output)
        else:
            self.node("Identity", x, output=output)

    def write(
        self,
        path: Path,
        inputs: dict[str, tuple[int, ...]],
        outputs: dict[str, tuple[int, ...]],
        fixed_batch: int | None,
    ) -> None:
        def value(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
            batch = fixed_batch if fixed_batch is not None else f"{self._prefix}batch"
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *shape])

        graph = helper.make_graph(
            self.nodes,
            f"{self._prefix}graph",
            [value(*item) for item in inputs.items()],
            [value(*item) for item in outputs.items()],
            self.initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=_IR_VERSION[self.opset],
        )
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())


def _audio_branch(net: _Layers, audio: str, widths: Widths) -> str:
    """(N, 32, 16, 16) -> (N, widths[4], 10, 10)."""
    _, c1, c2, c3, c4 = widths
    y = net.inverted_residual(audio, AUDIO_WINDOW_SHAPE[0], c1)
    y = net.inverted_residual(y, c1, c2)
    y = net.node("Relu", net.conv(y, c2, c3, 3, pad=1, gain=2.0))
    y = net.inverted_residual(y, c3, c3, add=True)
    y = net.node("Relu", net.conv(y, c3, c4, 3, stride=2, pad=3, gain=2.0))
    y = net.inverted_residual(y, c4, c4, add=True)
    return net.inverted_residual(y, c4, c4, add=True)


def write_unet(
    path: Path,
    *,
    seed: int,
    widths: Widths = FULL_WIDTHS,
    fixed_batch: int | None = None,
    prefix: str = "",
    sigmoid: bool = True,
    opset: int = 17,
    constant_nodes: bool = False,
) -> None:
    """Write the SyncTalk_2D U-Net with random weights drawn from ``seed`` as the ONNX file
    ``path``.

    The inputs are ``input`` (N, 6, 320, 320) and ``audio`` (N, 32, 16, 16), the output is
    ``output`` (N, 3, 320, 320), all float32. N is ``fixed_batch``, or any number where that is
    None. ``prefix`` is put before the names of inputs, output and layers. ``widths`` are the
    channels of the layers. The output is in [0, 1]: by a sigmoid, or clipped where ``sigmoid`` is
    false. ``opset`` is the version of ONNX's operators. ``constant_nodes`` keeps the weights in
    Constant nodes, which some exporters write, instead of initializers.
    """
    net = _Layers(seed, prefix=prefix, opset=opset, constant_nodes=constant_nodes)
    c0, c1, c2, c3, c4 = widths
    visual, audio, output = (prefix + name for name in ("input", "audio", "output"))

    # Six resolutions: 320, 160, 80, 40, 20, 10 pixels.
    levels = [(net.inverted_residual(visual, 6, c0), c0)]
    for width in (c0, c1, c2, c3, c4):
        x, channels = levels[-1]
        levels.append((net.pair(x, channels, width, stride=2), width))

    x, channels = levels.pop()
    x = net.node("Concat", x, _audio_branch(net, audio, widths), axis=1)
    x = net.pair(net.pair(x, channels + c4, c4), c4, c3)
    channels = c3
    for width in (c3 // 2, c2 // 2, c1 // 2, c0, c0 // 2):
        skip, skip_channels = levels.pop()
        x = net.node("Concat", net.double(x), skip, axis=1)
        x = net.pair(x, channels + skip_channels, width)
        channels = width
    net.end(net.conv(x, channels, 3), "sigmoid" if sigmoid else "clip", output)
    net.write(
        path,
        {visual: (6, MOUTH_PX, MOUTH_PX), audio: AUDIO_WINDOW_SHAPE},
        {output: (3, MOUTH_PX, MOUTH_PX)},
        fixed_batch,
    )


def write_tiny_unet(
    path: Path,
    *,
    seed: int,
    fixed_batch: int | None = None,
    prefix: str = "",
    ending: Ending = "sigmoid",
    opset: int = 17,
    constant_nodes: bool = False,
) -> None:
    """Write a network with random weights drawn from ``seed`` as the ONNX file ``path``, for tests.
    A frame takes it about a millisecond. Every output pixel depends on the audio, on its own 8x8
    block of both crops and on the weights.

    The inputs are ``input`` (N, 6, 320, 320) and ``audio`` (N, 32, 16, 16), the output is
    ``output`` (N, 3, 320, 320), all float32. N is ``fixed_batch``, or any number where that is
    None. ``prefix`` is put before the names of inputs, output and layers. ``ending`` says how the
    output is kept in [0, 1]: by a sigmoid ("sigmoid"), clipped ("clip"), or not at all ("none").
    ``opset`` is the version of ONNX's operators, 11 to 24. ``constant_nodes`` keeps the weights in
    Constant nodes, which some exporters write, instead of initializers.
    """
    net = _Layers(seed, prefix=prefix, opset=opset, constant_nodes=constant_nodes)
    visual, audio, output = (prefix + name for name in ("input", "audio", "output"))
    block, channels = 8, 16
    seen = net.conv(visual, 6, channels, block, stride=block, gain=2.0)  # (N, 16, 40, 40)
    heard = net.conv(audio, AUDIO_WINDOW_SHAPE[0], channels, 16, gain=2.0)  # (N, 16, 1, 1)
    x = net.node("Relu", net.node("Add", seen, heard))
    x = net.conv(x, channels, 3 * block * block)
    x = net.node("DepthToSpace", x, blocksize=block)  # (N, 3, 320, 320)
    x = net.node("Add", x, net.conv(visual, 6, 3))
    net.end(x, ending, output)
    net.write(
        path,
        {visual: (6, MOUTH_PX, MOUTH_PX), audio: AUDIO_WINDOW_SHAPE},
        {output: (3, MOUTH_PX, MOUTH_PX)},
        fixed_batch,
    )


def write_tiny_audio_encoder(path: Path, seed: int) -> None:
    """Write an audio encoder with random weights drawn from ``seed`` as the ONNX file ``path``, for
    tests. Its input is (N, 1, 80, 16), 16 columns of a mel spectrogram for each row; its output is
    (N, 512), both float32.

    It is one convolution as large as its input, so that the bits of a row do not depend on the
    batch in which it is computed.
    """
    net = _Layers(seed, prefix="", opset=17, constant_nodes=False)
    x = net.node("Relu", net.conv("mel", 1, FEATURE_SIZE, (80, 16), gain=2.0))
    net.node("Flatten", x, output="features", axis=1)
    net.write(path, {"mel": (1, 80, 16)}, {"features": (FEATURE_SIZE,)}, None)
