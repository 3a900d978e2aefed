"""The weights come out of the graph, so that one graph serves every avatar of its architecture.

Every floating constant becomes an input, without exception: a bias left inside would be the first
avatar's bias in everybody's face. What cannot be an input stays, and since sessions are shared by
the content of their graph, staying means a session of one's own, never somebody else's numbers.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_LIFTED: Final = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
MAX_CONSTANT_BYTES: Final = 1 << 20
"""What may stay in a shared graph: shapes and indices. More than that are weights (integers)."""


@dataclass(frozen=True, slots=True)
class Weight:
    """One array that was a constant of the graph and is an input of it now."""

    name: str
    values: npt.NDArray[np.generic]


def lift(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Weight]]:
    """Split a canonical model into the graph and its floating constants, in the order of inputs."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.initializer[:]
    weights: list[Weight] = []
    for tensor in model.graph.initializer:
        if tensor.data_type in _LIFTED:
            values = numpy_helper.to_array(tensor)
            weights.append(Weight(tensor.name, values))
            declared = helper.make_tensor_value_info(
                tensor.name, tensor.data_type, list(tensor.dims)
            )
            graph.graph.input.append(declared)
        else:
            graph.graph.initializer.append(tensor)
    return graph, weights


def why_not_shared(graph: onnx.ModelProto) -> str | None:
    """Why a lifted graph still carries one avatar's own numbers, or None where it does not."""
    for tensor in graph.graph.initializer:
        if tensor.data_type in (TensorProto.BFLOAT16, *_LIFTED):
            kind = TensorProto.DataType.Name(tensor.data_type)
            return f"constant {tensor.name} ({kind}) stays in the graph"
    left_bytes = sum(tensor.ByteSize() for tensor in graph.graph.initializer)
    if left_bytes > MAX_CONSTANT_BYTES:
        return f"{left_bytes} bytes of integers stay in the graph, shared are {MAX_CONSTANT_BYTES}"
    return None
