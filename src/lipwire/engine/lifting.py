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

_HOST_SLOTS: Final = {
    "Clip": (1, 2),
    "Dropout": (1,),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
}


@dataclass(frozen=True, slots=True)
class Weight:
    """One array that was a constant of the graph and is an input of it now."""

    name: str
    values: npt.NDArray[np.generic]


def host_constants(graph: onnx.GraphProto) -> list[tuple[str, str]]:
    """(operator, name) of what a GPU's kernels read on the host: bounds, scales, paddings.

    Fed from the GPU, such a value would be copied back in every run, and the run would wait for it.
    They are the floating ones among the inputs that onnxruntime/core/providers/cuda declares as
    OrtMemTypeCPUInput.
    """
    return [
        (node.op_type, name)
        for node in graph.node
        for slot, name in enumerate(node.input)
        if name and slot in _HOST_SLOTS.get(node.op_type, ())
    ]


def lift(model: onnx.ModelProto, *, for_gpu: bool = False) -> tuple[onnx.ModelProto, list[Weight]]:
    """Split a canonical model into the graph and its floating constants, in the order of inputs.

    ``for_gpu`` leaves inside what a GPU's kernels read on the host. Avatars that differ in one of
    these have different graphs, and share no session.
    """
    kept = {name for _, name in host_constants(model.graph)} if for_gpu else set()
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.initializer[:]
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


def why_not_shared(graph: onnx.ModelProto, *, for_gpu: bool = False) -> str | None:
    """Why a lifted graph still carries one avatar's own numbers, or None where it does not."""
    kept = {name for _, name in host_constants(graph.graph)} if for_gpu else set()
    for tensor in graph.graph.initializer:
        if tensor.name not in kept and tensor.data_type in (TensorProto.BFLOAT16, *_LIFTED):
            kind = TensorProto.DataType.Name(tensor.data_type)
            return f"constant {tensor.name} ({kind}) stays in the graph"
    left_bytes = sum(tensor.ByteSize() for tensor in graph.graph.initializer)
    if left_bytes > MAX_CONSTANT_BYTES:
        return f"{left_bytes} bytes of integers stay in the graph, shared are {MAX_CONSTANT_BYTES}"
    return None
