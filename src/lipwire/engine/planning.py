"""From the graph that GPUs run (form *pixels*, half precision) to a plan of its blocks.

The whole graph is accounted for, node by node: what is not exactly a block of the family, one of
the passes round it (``wrapping``), or a Pad of nothing is refused with the name of the value where
it shows. There is no almost: a plan that ran a network nearly as it was meant would paint a wrong
face in silence, while a network without a plan is run by ONNX Runtime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from lipwire.domain import AUDIO_WINDOW_SHAPE, MASK_COLUMNS, MASK_ROWS, MOUTH_PX
from lipwire.engine.graphreading import OLDEST_OPSET, GraphReader, Layer, said, settings
from lipwire.engine.plan import (
    Ending,
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
from lipwire.engine.source import first_line
from lipwire.engine.wrapping import FACE, MOUTH, PIXELS_SHAPE, SPEECH

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

# The passes before the network, as ``wrapping`` writes them: a node, and what of those before it
# is at its inputs, make the next.
_CROP_PASSES: Final[dict[tuple[str, tuple[str, ...]], str]] = {
    ("Transpose", (FACE,)): "planes",
    ("Where", ("", "", "planes")): "strip",
    ("Where", ("", "strip", "planes")): "masked",
    ("Concat", ("planes", "masked")): "both",
    ("Cast", ("both",)): "single",
    ("Div", ("single", "")): "shares",
    ("Cast", ("shares",)): "pixels",
}
_CROP_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "planes": {"perm": [0, 3, 1, 2]},
    "both": {"axis": 1},
    "single": {"to": TensorProto.FLOAT},
    "pixels": {"to": TensorProto.FLOAT16},
}


@dataclass(frozen=True, slots=True)
class _Doubled:
    """What a Resize makes; nothing but a Concat may use it."""

    tensor: Tensor


_Value = Source | _Doubled


def plan_network(graph: bytes) -> Plan:
    """The plan of ``graph``, an ONNX model as compiling writes it (pixels-half.onnx).

    Raises NotPlanned.
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
        self._batch = _check_ends(model.graph)
        self._reader = GraphReader(model)
        self._values: dict[str, _Value] = {}
        """What the names of the graph mean in the plan; all of it is float16."""
        self._of_crop = {FACE: FACE}
        """Names of what the passes before the network make, by those of the graph."""
        self._done: set[int] = set()
        self._steps: list[Step] = []
        self._tensors: list[Tensor] = []

    def plan(self) -> Plan:
        for place in self._reader.layers():
            if place not in self._done:
                self._done.add(place)
                self._enter(self._reader.nodes[place])
        if not self._steps or not isinstance(self._steps[-1], Mouth):
            raise NotPlanned(f"no block of a plan makes {MOUTH}")
        constants = tuple(sorted(self._reader.lifted.items()))
        return Plan(tuple(self._steps), tuple(self._tensors), constants)

    def _enter(self, node: onnx.NodeProto) -> None:
        """Plan ``node`` and those that follow it in its block."""
        if self._steps and isinstance(self._steps[-1], Mouth):
            raise said(node, f"it comes after what makes {MOUTH}")
        before = tuple(self._of_crop.get(name, "") for name in node.input)
        if any(before):
            self._prepare(node, before)
        elif node.op_type == "Cast" and list(node.input) == [SPEECH]:
            _expect(node, {"to": TensorProto.FLOAT16})
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

    def _prepare(self, node: onnx.NodeProto, before: tuple[str, ...]) -> None:
        """One of the passes that make the network's input of the crop."""
        made = _CROP_PASSES.get((node.op_type, before))
        if made is None:
            raise said(node, "the crop is not prepared so")
        _expect(node, _CROP_SETTINGS.get(made, {}))
        if node.op_type == "Where":
            self._check_mask(node, made)
        if made == "strip":
            self._reader.check_number(node, 1, 0)
        if made == "shares":
            self._reader.check_number(node, 1, 255)
        if made == "pixels":
            self._values[node.output[0]] = Pixels()
        else:
            self._of_crop[node.output[0]] = made

    def _check_mask(self, node: onnx.NodeProto, made: str) -> None:
        """The strip is black in some columns; what is masked is the strip in some rows."""
        mask = np.zeros(MOUTH_PX, np.bool_)
        mask[MASK_COLUMNS if made == "strip" else MASK_ROWS] = True
        mask = mask[None, :] if made == "strip" else mask[:, None]
        found = self._reader.constant(node.input[0])
        if found is None or found.dtype != mask.dtype or not np.array_equal(found, mask):
            raise said(node, "another mask than the guide's")

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
        after = self._reader.only_user(layer.node.output[0])
        if after is not None and self._reader.nodes[after].op_type == "Relu":
            self._invert(layer, source)
        else:
            self._end(layer, source)

    def _convolve_fully(self, layer: Layer, source: Source) -> None:
        if not isinstance(source, Plain | Speech):
            raise said(layer.node, "a 3x3 convolution of the crop, or of a Concat")
        name = layer.node.output[0]
        after = self._reader.only_user(name)
        relu = after is not None and self._reader.nodes[after].op_type == "Relu"
        if relu:
            name = self._next(name, "Relu").output[0]
        out = self._make(name, layer, source)
        self._steps.append(
            FullConvolution(source, layer.convolution, layer.stride, layer.padding, relu, out)
        )

    def _invert(self, expand: Layer, source: Source) -> None:
        """An inverted residual block."""
        relu = self._next(expand.node.output[0], "Relu")
        depthwise = self._reader.layer(self._next(relu.output[0], "Conv"))
        wide = expand.convolution.outputs
        placed = (depthwise.kernel, depthwise.padding, depthwise.convolution.inputs)
        if not depthwise.depthwise or placed != (3, 1, wide) or depthwise.stride > 2:
            raise said(depthwise.node, f"not 3x3 over each of {wide} channels, padded by one")
        relu = self._next(depthwise.node.output[0], "Relu")
        project = self._reader.layer(self._next(relu.output[0], "Conv"))
        if not _is_pointwise(project) or project.convolution.inputs != wide:
            raise said(project.node, f"not 1x1 over {wide} channels")
        name = project.node.output[0]
        added = self._adds(name, depthwise.stride, project.convolution.outputs, source)
        if added:
            name = self._next(name, "Add").output[0]
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
        after = self._reader.only_user(name)
        if after is None or self._reader.nodes[after].op_type != "Add":
            return False
        others = [other for other in self._reader.nodes[after].input if other != name]
        if len(others) != 1 or self._values.get(others[0]) != source:
            return False
        fits = isinstance(source, Plain) and stride == 1 and source.tensor.channels == channels
        if not fits:
            raise said(self._reader.nodes[after], "it adds what does not fit, or is no tensor")
        return True

    def _end(self, layer: Layer, source: Source) -> None:
        """From the last convolution to the mouth, as ``wrapping`` writes it."""
        wanted = (MOUTH_PX, MOUTH_PX)
        fits = isinstance(source, Plain) and (source.tensor.height, source.tensor.width) == wanted
        if not isinstance(source, Plain) or not fits or layer.convolution.outputs != 3:
            raise said(layer.node, "no ReLU follows, and it does not make the mouth")
        name = layer.node.output[0]
        after = self._reader.only_user(name)
        kind = "" if after is None else self._reader.nodes[after].op_type
        ending: Ending = "none"
        if kind == "Sigmoid":
            ending = "sigmoid"
            name = self._next(name, "Sigmoid").output[0]
        elif kind == "Clip":
            ending = "clip"
            name = self._clipped(name, 1)
        name = self._next(name, "Cast", to=TensorProto.FLOAT).output[0]
        times = self._next(name, "Mul")
        if times.input[0] != name:
            raise said(times, "its inputs are the other way round")
        self._reader.check_number(times, 1, 255)
        name = self._next(self._clipped(times.output[0], 255), "Round").output[0]
        name = self._next(name, "Cast", to=TensorProto.UINT8).output[0]
        name = self._next(name, "Transpose", perm=[0, 2, 3, 1]).output[0]
        if name != MOUTH:
            raise NotPlanned(f"{name[:60]} is made like a mouth, {MOUTH} is wanted")
        self._steps.append(Mouth(source.tensor, layer.convolution, ending))

    def _clipped(self, name: str, most: float) -> str:
        """The name of what a Clip of ``name`` to [0, ``most``] makes."""
        clip = self._next(name, "Clip")
        if clip.input[0] != name or len(clip.input) != 3:
            raise said(clip, "it has not both bounds")
        self._reader.check_number(clip, 1, 0)
        self._reader.check_number(clip, 2, most)
        return str(clip.output[0])

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
        _expect(node, {"axis": 1})
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

    def _next(self, name: str, op: str, **attributes: Any) -> onnx.NodeProto:
        """The only user of ``name``, which has to be an ``op``, and is done now."""
        place = self._reader.only_user(name)
        if place is None:
            raise NotPlanned(f"{name[:60]} does not have one user, wanted is one {op}")
        node = self._reader.nodes[place]
        if node.op_type != op:
            raise said(node, f"it follows {name[:60]}, wanted is {op}")
        if op != "Conv":
            _expect(node, attributes)
        elif node.input[0] != name:
            raise said(node, f"{name[:60]} is its weights or its bias")
        self._done.add(place)
        return node

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


def _expect(node: onnx.NodeProto, attributes: Mapping[str, Any]) -> None:
    """That ``node`` has these attributes and no others."""
    chosen = settings(node, dict.fromkeys(attributes))
    if chosen != attributes:
        raise said(node, f"{chosen}, wanted is {dict(attributes)}")


def _check_ends(graph: onnx.GraphProto) -> int | None:
    """The batch of the face, the speech and the mouth; None where it is open."""
    batches: set[int | str | None] = set()
    names = {value.name: value.type.tensor_type for value in (*graph.input, *graph.output)}
    for name, kind, shape in (
        (FACE, TensorProto.UINT8, PIXELS_SHAPE),
        (SPEECH, TensorProto.FLOAT, AUDIO_WINDOW_SHAPE),
        (MOUTH, TensorProto.UINT8, PIXELS_SHAPE),
    ):
        found = names.get(name)
        dims = [] if found is None else list(found.shape.dim)
        if (
            found is None
            or found.elem_type != kind
            or tuple(dim.dim_value for dim in dims[1:]) != tuple(shape)
        ):
            raise NotPlanned(f"{name} is not (N, {', '.join(map(str, shape))})")
        batches.add(dims[0].dim_value or dims[0].dim_param or None)
    if len(batches) != 1 or len(graph.output) != 1:
        raise NotPlanned(f"batches of {batches} and {len(graph.output)} outputs, wanted is one")
    batch = batches.pop()
    return batch if isinstance(batch, int) else None
