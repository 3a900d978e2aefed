"""Constants of a graph that a GPU's kernels read from the host's memory."""

from typing import Final

import onnx

_HOST_INPUTS: Final = {
    "Clip": (1, 2),
    "Dropout": (1,),
    "Pad": (2,),
    "Range": (0, 1, 2),
    "Resize": (1, 2),
    "Upsample": (1,),
}


def host_constants(graph: onnx.GraphProto) -> list[tuple[str, str]]:
    """Return (operator, name) for each input of a node of ``graph`` that a GPU's kernels read from
    the host's memory, such as the bounds of a Clip or the scales of a Resize, in the graph's order.
    ``name`` is that of the value.

    If such a value were fed from the GPU, it would be copied back in every run, and the run would
    wait for it. The inputs are the floating ones among those that onnxruntime/core/providers/cuda
    declares as OrtMemTypeCPUInput. Avatars that differ in one of these values share no session.
    """
    return [
        (node.op_type, name)
        for node in graph.node
        for index, name in enumerate(node.input)
        if name and index in _HOST_INPUTS.get(node.op_type, ())
    ]
