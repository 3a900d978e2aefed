"""From the graph that GPUs run (form *pixels*, half precision) to a plan of its blocks.

The whole graph is accounted for, node by node: what is not exactly a block of the family, one of
the passes round it (``wrapping``), or a Pad of nothing is refused with the name of the value where
it shows. There is no almost: a plan that ran a network nearly as it was meant would paint a wrong
face in silence, while a network without a plan is run by ONNX Runtime.
"""

from dataclasses import dataclass
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from lipwire.domain import AUDIO_WINDOW_SHAPE, MOUTH_PX
from lipwire.engine.forms import MOUTH, SPEECH
from lipwire.engine.gpu.kernels.planning.graphreading import (
    OLDEST_OPSET,
    GraphReader,
    Layer,
    expect,
    said,
    settings,
)
from lipwire.engine.gpu.kernels.planning.plan import (
    FullConvolution,
    InvertedResidual,
    Joined,
    Mouth,
    NotPlanned,
    Pixels,
    Plain,
    Plan,
    Source,
    Speech,
    Step,
    Tensor,
)
from lipwire.engine.gpu.kernels.planning.unwrapping import CropPasses, check_ends, find_ending
from lipwire.engine.runtime import first_line

_RESIZE: Final = {
    "antialias": 0,
    "coordinate_transformation_mode": "half_pixel",
    "exclude_outside": 0,
    "keep_aspect_ratio_policy": "stretch",
    "mode": "nearest",
    # These say nothing about a linear one inside the picture.
    "cubic_coeff_a": -0.75,
    "extrapolation_value": 0.0,
    "nearest_mode": "round_prefer_floor",
}
_DOUBLING: Final = {
    "antialias": 0,
    "coordinate_transformation_mode": "align_corners",
    "exclude_outside": 0,
    "keep_aspect_ratio_policy": "stretch",
    "mode": "linear",
}


@dataclass(frozen=True, slots=True)
class _Doubled:
    """What a Resize makes; nothing but a Concat may use it."""

    tensor: Tensor


_Value = Source | _Doubled


def plan_network(graph: bytes) -> Plan:
    """Return the plan of a network, the steps for which there are kernels. ``graph`` is the bytes
    of the ONNX file that the network was compiled to for GPUs, in the form "pixels" and half
    precision (pixels-half.onnx).

    Raises NotPlanned, with one line that says why, where ``graph`` is not valid ONNX, or any part
    of it does not belong to a step that the kernels compute.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(graph)
    except DecodeError:
        raise NotPlanned("it is not an ONNX model") from None
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise NotPlanned(f"it is not valid ONNX: {first_line(error)}") from None
    for opset in model.opset_import:
        if opset.domain or opset.version < OLDEST_OPSET:
            name = f"{opset.domain or 'ai.onnx'} {opset.version}"
            raise NotPlanned(f"operators of {name}, planned are ai.onnx {OLDEST_OPSET} and later")
    return _Planner(model).plan()


class _Planner:
    """Walks a graph once, in its order, and puts every node into a step."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._batch = check_ends(model.graph)
        self._reader = GraphReader(model)
        self._values: dict[str, _Value] = {}
        """What the names of the graph mean in the plan; all of it is float16."""
        self._crop = CropPasses(self._reader)
        self._steps: list[Step] = []
        self._tensors: list[Tensor] = []

    def plan(self) -> Plan:
        for node in self._reader.untaken():
            self._enter(node)
        if not self._steps or not isinstance(self._steps[-1], Mouth):
            raise NotPlanned(f"no block of a plan makes {MOUTH}")
        constants = tuple(sorted(self._reader.lifted.items()))
        return Plan(tuple(self._steps), tuple(self._tensors), constants)

    def _enter(self, node: onnx.NodeProto) -> None:
        """Plan ``node`` and those that follow it in its block."""
        if self._steps and isinstance(self._steps[-1], Mouth):
            raise said(node, f"it comes after what makes {MOUTH}")
        if self._crop.has(node):
            pixels = self._crop.enter(node)
            if pixels is not None:
                self._values[node.output[0]] = pixels
        elif node.op_type == "Cast" and list(node.input) == [SPEECH]:
            expect(node, {"to": TensorProto.FLOAT16})
            self._values[node.output[0]] = Speech()
        elif node.op_type == "Conv":
            self._convolve(self._reader.layer(node), self._value(node, 0))
        elif node.op_type == "Resize":
            self._values[node.output[0]] = self._doubled(node)
        elif node.op_type == "Concat":
            self._values[node.output[0]] = self._joined(node)
        elif node.op_type == "Pad":
            value = self._value(node, 0)
            shapes = {name: self._shape(known) for name, known in self._values.items()}
            self._reader.check_pads_nothing(node, shapes)
            self._values[node.output[0]] = value
        else:
            raise said(node, "no block of a plan has it here")

    def _convolve(self, layer: Layer, source: _Value) -> None:
        """The step that begins with ``layer``."""
        if isinstance(source, _Doubled):
            raise said(layer.node, "its input is a Resize and nothing else")
        _, channels, _, _ = self._shape(source)
        if layer.convolution.inputs != channels:
            raise said(layer.node, f"{layer.convolution.inputs} inputs, it gets {channels}")
        if layer.kernel == 3 and not layer.depthwise:
            self._convolve_fully(layer, source)
            return
        if not _is_pointwise(layer):
            raise said(layer.node, "no block of a plan begins with such a convolution")
        if self._reader.kind_after(layer.node.output[0]) == "Relu":
            self._invert(layer, source)
        else:
            self._end(layer, source)

    def _convolve_fully(self, layer: Layer, source: Source) -> None:
        if not isinstance(source, Plain | Speech):
            raise said(layer.node, "a 3x3 convolution of the crop, or of a Concat")
        name = layer.node.output[0]
        relu = self._reader.kind_after(name) == "Relu"
        if relu:
            name = self._reader.take(name, "Relu").output[0]
        out = self._make(name, layer, source)
        self._steps.append(
            FullConvolution(source, layer.convolution, layer.stride, layer.padding, relu, out)
        )

    def _invert(self, expand: Layer, source: Source) -> None:
        """An inverted residual block."""
        relu = self._reader.take(expand.node.output[0], "Relu")
        depthwise = self._reader.layer(self._reader.take(relu.output[0], "Conv"))
        wide = expand.convolution.outputs
        placed = (depthwise.kernel, depthwise.padding, depthwise.convolution.inputs)
        if not depthwise.depthwise or placed != (3, 1, wide) or depthwise.stride > 2:
            raise said(depthwise.node, f"not 3x3 over each of {wide} channels, padded by one")
        relu = self._reader.take(depthwise.node.output[0], "Relu")
        project = self._reader.layer(self._reader.take(relu.output[0], "Conv"))
        if not _is_pointwise(project) or project.convolution.inputs != wide:
            raise said(project.node, f"not 1x1 over {wide} channels")
        name = project.node.output[0]
        added = self._adds(name, depthwise.stride, project.convolution.outputs, source)
        if added:
            name = self._reader.take(name, "Add").output[0]
        out = self._make(name, depthwise, source, project.convolution.outputs)
        self._steps.append(
            InvertedResidual(
                source,
                expand.convolution,
                depthwise.convolution,
                project.convolution,
                depthwise.stride,
                added,
                out,
            )
        )

    def _adds(self, name: str, stride: int, channels: int, source: Source) -> bool:
        """Whether ``name`` goes only into an Add with the block's source."""
        add = self._reader.only_user(name)
        if add is None or add.op_type != "Add":
            return False
        others = [other for other in add.input if other != name]
        if len(others) != 1 or self._values.get(others[0]) != source:
            return False
        fits = isinstance(source, Plain) and stride == 1 and source.tensor.channels == channels
        if not fits:
            raise said(add, "it adds what does not fit, or is no tensor")
        return True

    def _end(self, layer: Layer, source: Source) -> None:
        """From the last convolution to the mouth, as ``wrapping`` writes it."""
        wanted = (MOUTH_PX, MOUTH_PX)
        fits = isinstance(source, Plain) and (source.tensor.height, source.tensor.width) == wanted
        if not isinstance(source, Plain) or not fits or layer.convolution.outputs != 3:
            raise said(layer.node, "no ReLU follows, and it does not make the mouth")
        ending = find_ending(self._reader, layer.node.output[0])
        self._steps.append(Mouth(source.tensor, layer.convolution, ending))

    def _doubled(self, node: onnx.NodeProto) -> _Doubled:
        chosen = settings(node, _RESIZE)
        for name, wanted in _DOUBLING.items():
            if chosen[name] != wanted:
                raise said(node, f"{name} is {chosen[name]}, wanted is {wanted}")
        scales = self._reader.constant(node.input[2]) if len(node.input) == 3 else None
        if scales is None or scales.tolist() != [1, 1, 2, 2]:
            raise said(node, "scales are not constant, or not 1, 1, 2, 2")
        value = self._value(node, 0)
        if not isinstance(value, Plain):
            raise said(node, "it resizes what is no tensor")
        return _Doubled(value.tensor)

    def _joined(self, node: onnx.NodeProto) -> Joined:
        expect(node, {"axis": 1})
        if len(node.input) != 2:
            raise said(node, f"it joins {len(node.input)}, planned are two")
        first, second = self._value(node, 0), self._value(node, 1)
        if not isinstance(first, Plain | _Doubled) or not isinstance(second, Plain):
            raise said(node, "only the first of two tensors may be resized")
        if self._shape(first)[2:] != self._shape(second)[2:]:
            raise said(node, f"{self._shape(first)} and {self._shape(second)} do not fit")
        return Joined(first.tensor, isinstance(first, _Doubled), second.tensor)

    def _value(self, node: onnx.NodeProto, slot: int) -> _Value:
        value = self._values.get(node.input[slot])
        if value is None:
            raise said(node, f"input {slot} is inside of another block, or no float16 of a plan")
        return value

    def _make(self, name: str, layer: Layer, source: Source, channels: int | None = None) -> Tensor:
        """The tensor ``name``, as large as ``layer`` makes it of ``source``."""
        height, width = (
            (size + 2 * layer.padding - layer.kernel) // layer.stride + 1
            for size in self._shape(source)[2:]
        )
        if min(height, width) < 1:
            raise said(layer.node, "it makes nothing")
        out = Tensor(len(self._tensors), height, width, channels or layer.convolution.outputs)
        self._tensors.append(out)
        self._values[name] = Plain(out)
        return out

    def _shape(self, value: _Value) -> tuple[int | None, int, int, int]:
        """Of ``value`` in the graph, channels first."""
        if isinstance(value, Pixels):
            return self._batch, 6, MOUTH_PX, MOUTH_PX
        if isinstance(value, Speech):
            return self._batch, *AUDIO_WINDOW_SHAPE
        if isinstance(value, Joined):
            channels = value.first.channels + value.second.channels
            return self._batch, channels, value.second.height, value.second.width
        tensor, times = value.tensor, 2 if isinstance(value, _Doubled) else 1
        return self._batch, tensor.channels, times * tensor.height, times * tensor.width


def _is_pointwise(layer: Layer) -> bool:
    """1x1, nothing else; one group, so that depthwise ones of a single channel are not meant."""
    return (layer.kernel, layer.stride, layer.padding) == (1, 1, 0) and not layer.depthwise
