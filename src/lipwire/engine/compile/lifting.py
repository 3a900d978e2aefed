"""The weights come out of the graph, so that one graph serves every avatar of its architecture.

Every floating constant becomes an input, without exception: a bias left inside would be the first
avatar's bias in everybody's face. What cannot be an input stays, and since sessions are shared by
the content of their graph, staying means a session of one's own, never somebody else's numbers.
"""

from collections.abc import Set
from typing import Final

import onnx
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine.graphs import Weight

_LIFTED: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
MAX_CONSTANT_BYTES: Final = 1 << 20
"""What may stay in a shared graph: shapes and indices. More than that are weights (integers)."""


def lift(
    model: onnx.ModelProto, kept: Set[str] = frozenset()
) -> tuple[onnx.ModelProto, list[Weight]]:
    """Split ``model``, an ONNX model in canonical form, into a graph without weights and the
    weights, and return both: avatars with equal graphs can then share one session.

    Every floating-point constant becomes an input of the graph, after the inputs that are there,
    and the weights are in the order of these inputs. Constants named in ``kept`` stay inside:
    avatars that differ in one of these have different graphs, and share no session. ``model`` is
    not changed.
    """
    graph = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    graph.opset_import.extend(model.opset_import)
    graph.graph.name = model.graph.name
    graph.graph.node.extend(model.graph.node)
    graph.graph.input.extend(model.graph.input)
    graph.graph.output.extend(model.graph.output)
    weights: list[Weight] = []
    for tensor in model.graph.initializer:
        if tensor.data_type in _LIFTED and tensor.name not in kept:
            values = numpy_helper.to_array(tensor)
            weights.append(Weight(tensor.name, values))
            declared = helper.make_tensor_value_info(
                tensor.name, tensor.data_type, list(tensor.dims)
            )
            graph.graph.input.append(declared)
        else:
            graph.graph.initializer.append(tensor)
    return graph, weights


def why_not_shared(graph: onnx.ModelProto, kept: Set[str] = frozenset()) -> str | None:
    """Return why avatars cannot share the graph ``graph``, which ``lift`` returned, as a part of a
    message: which numbers of one avatar, besides the constants named in ``kept``, the graph still
    contains. Returns None where avatars can share it."""
    for tensor in graph.graph.initializer:
        if tensor.name not in kept and tensor.data_type in (TensorProto.BFLOAT16, *_LIFTED):
            kind = TensorProto.DataType.Name(tensor.data_type)
            return f"constant {tensor.name} ({kind}) stays in the graph"
    left_bytes = sum(tensor.ByteSize() for tensor in graph.graph.initializer)
    if left_bytes > MAX_CONSTANT_BYTES:
        return f"{left_bytes} bytes of integers stay in the graph, shared are {MAX_CONSTANT_BYTES}"
    return None
