"""What a network's file says about itself: its inputs, its output, its batch.

Inputs and outputs are told apart by shape, because exporters and people name them as they like.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto

from lipwire.domain import AUDIO_WINDOW_SHAPE, AvatarInvalid
from lipwire.domain.wording import shown
from lipwire.engine.compile.sourcemodel import (
    SourceModel,
    damage_refused,
    graphs_below,
    read_model,
)
from lipwire.engine.compile.variants import Dims, known_variant
from lipwire.engine.forms import MAX_FIXED_BATCH, OUTPUT_SHAPE, VISUAL_SHAPE

_ELEMENT_TYPES: Final = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}
_FLOATS: Final = (
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BFLOAT16,
)
_WANTED: Final = "wanted is Nx6x320x320 (the crops) and Nx32x16x16 (the speech) in, Nx3x320x320 out"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the ONNX file of a lip-sync network says of it.

    ``input_name`` is the input for the face, (N, 6, 320, 320), ``audio_name`` that for the audio
    windows, (N, 32, 16, 16), and ``output_name`` the mouths, (N, 3, 320, 320). ``fixed_batch`` is
    the only N that the network takes; None where any will do. ``element_types`` are the types of
    the two inputs and the output, "float32" or "float16". ``parameters`` is how many floating-point
    numbers it has learned, ``opset`` the version of ONNX's operators.
    """

    input_name: str
    """Name of the input for both crops: (N, 6, 320, 320)."""
    audio_name: str
    """Name of the input for the speech: (N, 32, 16, 16)."""
    output_name: str
    """Name of the output, the mouth: (N, 3, 320, 320)."""
    fixed_batch: int | None
    """The only N that the network takes; None where any will do."""
    element_types: tuple[str, str, str]
    """Types of the two inputs and the output: 'float32' or 'float16'."""
    parameters: int
    """Floating point numbers it has learned."""
    opset: int


def inspect_model(path: Path) -> ModelInfo:
    """Check the ONNX file at ``path`` and return a description of its network, without running it.

    Raises NotFound where there is no file; AvatarInvalid where it is not ONNX, is damaged or too
    large, has inputs or outputs of other shapes or types than ``ModelInfo`` names, keeps data
    outside its folder, has weights that are not finite, or uses operators that are not allowed.
    """
    source = read_model(path)
    with damage_refused(path.name):
        return describe(source, path.name)


def describe(source: SourceModel, label: str) -> ModelInfo:
    """Return a description of the network ``source``, which ``read_model`` has read. ``label``, the
    file's name, begins messages. Raises AvatarInvalid where inputs or outputs have other shapes or
    types than ``ModelInfo`` names, or the two inputs have different fixed batch sizes or one over
    256."""
    graph = source.proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    # Up to IR version 3 weights are listed among the inputs, and some exporters still do so.
    inputs = [value for value in graph.input if value.name not in weights]
    visual = _matching(inputs, VISUAL_SHAPE)
    audio = _matching(inputs, AUDIO_WINDOW_SHAPE)
    outputs = _matching(graph.output, OUTPUT_SHAPE)
    if len(inputs) != 2 or len(visual) != 1 or len(audio) != 1:
        known = known_variant([_dims(value) for value in inputs])
        raise AvatarInvalid(f"{label}: takes {_listed(inputs)}{known}; {_WANTED}")
    if len(outputs) != 1:
        raise AvatarInvalid(f"{label}: makes {_listed(graph.output)}; {_WANTED}")
    ports = (visual[0], audio[0], outputs[0])
    for port in ports:
        if port.type.tensor_type.elem_type not in _ELEMENT_TYPES:
            raise AvatarInvalid(f"{label}: {_described(port)}; allowed are float32 and float16")
    first, second, third = (_ELEMENT_TYPES[port.type.tensor_type.elem_type] for port in ports)
    return ModelInfo(
        input_name=ports[0].name,
        audio_name=ports[1].name,
        output_name=ports[2].name,
        fixed_batch=_fixed_batch(ports, label),
        element_types=(first, second, third),
        parameters=_parameters(graph, label),
        opset=source.opset,
    )


def _dims(value: onnx.ValueInfoProto) -> Dims | None:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in tensor.shape.dim
    )


def _matching(
    values: Sequence[onnx.ValueInfoProto], shape: tuple[int, int, int]
) -> list[onnx.ValueInfoProto]:
    """Those that can have this shape: channels as wanted, height and width as wanted or open."""

    def matches(dims: Dims | None) -> bool:
        if dims is None or len(dims) != 4 or dims[1] != shape[0]:
            return False
        pairs = zip(dims[2:], shape[1:], strict=True)
        return all(not isinstance(seen, int) or seen == wanted for seen, wanted in pairs)

    return [value for value in values if matches(_dims(value))]


def _fixed_batch(ports: Sequence[onnx.ValueInfoProto], label: str) -> int | None:
    """The batch of the two inputs; an output that says something else is found when it is run."""
    seen = {dims[0] for port in ports[:2] if (dims := _dims(port))}
    fixed = sorted(batch for batch in seen if isinstance(batch, int))
    if not fixed:
        return None
    if len(fixed) > 1 or not 1 <= fixed[0] <= MAX_FIXED_BATCH:
        raise AvatarInvalid(
            f"{label}: takes {_listed(ports[:2])}; wanted is one batch size for both, from 1 to"
            f" {MAX_FIXED_BATCH}"
        )
    return fixed[0]


def _parameters(graph: onnx.GraphProto, label: str) -> int:
    count = 0
    for inner in graphs_below(graph, label):
        tensors = list(inner.initializer)
        for node in inner.node:
            if node.op_type == "Constant":
                tensors += [a.t for a in node.attribute if a.HasField("t")]
        count += sum(math.prod(t.dims) for t in tensors if t.data_type in _FLOATS)
    return count


def _described(value: onnx.ValueInfoProto) -> str:
    dims = _dims(value)
    shape = (
        "of unknown shape"
        if dims is None
        else "x".join("?" if dim is None else str(dim)[:12] for dim in dims)
    )
    element = value.type.tensor_type.elem_type
    known = element in TensorProto.DataType.values()
    return f"{shown(value.name, 30)} {shape} {TensorProto.DataType.Name(element) if known else '?'}"


def _listed(values: Sequence[onnx.ValueInfoProto]) -> str:
    if not values:
        return "nothing"
    more = f" and {len(values) - 4} more" if len(values) > 4 else ""
    return ", ".join(_described(value) for value in values[:4]) + more
