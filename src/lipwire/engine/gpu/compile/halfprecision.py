"""Half precision: a network in float16, and whether its faces stay what they are.

On a GPU float16 takes half the memory traffic, which is what the network's time is made of. Sums
are taken in float32 there; what is rounded is every weight and everything that a layer hands on.
``rounded`` builds just that in float32 nodes, so that it can be looked at on the processor, where
ONNX Runtime would compute a float16 network without rounding in between and say that all is well.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine.gpu.compile.hostconstants import host_constants

MAX_DIFFERENCE: Final = 2
"""The largest difference allowed anywhere in a mouth, in levels of 0 to 255."""
MAX_MEAN_DIFFERENCE: Final = 0.2
"""The largest mean difference allowed over all mouths of a trial, in levels of 0 to 255."""

_HALF_MAX: Final = float(np.finfo(np.float16).max)
_KEEPS_TYPE: Final = frozenset({"Resize", "Upsample"})
"""Their constants are float32 whatever the values are that they work on."""


class CannotHalve(Exception):
    """The network has something that float16 cannot hold; the message is one line that says
    what."""


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``model``, an ONNX model in canonical form that computes in float32, with
    float16 in place of every float32; only the scales of a Resize stay float32.

    Its inputs and output are float16 too. Raises CannotHalve where a weight is too large for
    float16, or the model has branches.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    kept = _float32_constants(graph)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(numpy_helper.from_array(_to_half(tensor), tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                raise CannotHalve("it has branches")
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(numpy_helper.from_array(_to_half(attribute.t)))
    return half


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``model``, an ONNX model in canonical form, that computes in float32, but
    rounds weights, inputs and the output of every layer to float16: on the processor its results
    are those that the model has on a GPU when all of it is float16. Inputs and outputs stay
    float32. Raises CannotHalve where a weight is too large for float16, above 65504."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    kept = _float32_constants(graph)
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            values = _to_half(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    floats = _float_values(model)
    nodes: list[onnx.NodeProto] = []
    names: dict[str, str] = {}

    def through_half(name: str, output: str) -> None:
        half = f"half_{len(nodes)}"
        nodes.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", [half], [output], to=TensorProto.FLOAT))

    for value in graph.input:
        names[value.name] = f"rounded_{value.name}"
        through_half(value.name, names[value.name])
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [names.get(name, name) for name in node.input]
        exact = {name: f"exact_{name}" for name in node.output if name in floats}
        copy.output[:] = [exact.get(name, name) for name in node.output]
        nodes.append(copy)
        for name, before in exact.items():
            through_half(before, name)
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def why_not_half(single: npt.NDArray[np.uint8], half: npt.NDArray[np.uint8]) -> str | None:
    """Return in one line how mouths of a network in half precision differ too much from those in
    single precision; None where they are near enough.

    ``single`` and ``half`` are the two arrays of mouths, (N, 320, 320, 3) uint8, made of the same
    inputs. Allowed are differences of 2 levels of 255 anywhere, and of 0.2 in the mean.
    """
    apart = np.abs(single.astype(np.int16) - half.astype(np.int16))
    most, mean = int(apart.max()), float(apart.mean())
    if most > MAX_DIFFERENCE:
        return f"a pixel differs by {most} of 255, allowed are {MAX_DIFFERENCE}"
    if mean > MAX_MEAN_DIFFERENCE:
        return f"pixels differ by {mean:.2f} of 255 in the mean, allowed are {MAX_MEAN_DIFFERENCE}"
    return None


def _to_half(tensor: TensorProto) -> npt.NDArray[np.float16]:
    values = numpy_helper.to_array(tensor)
    largest = float(np.abs(values).max(initial=0))
    if largest > _HALF_MAX:
        raise CannotHalve(f"a weight is {largest:.3g}, float16 ends at {_HALF_MAX:.0f}")
    half: npt.NDArray[np.float16] = values.astype(np.float16)
    return half


def _float32_constants(graph: onnx.GraphProto) -> set[str]:
    """Constants that stay float32: scales of a Resize, whose type does not follow its values."""
    return {name for op, name in host_constants(graph) if op in _KEEPS_TYPE}


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Names of the float32 values that nodes of ``model`` make."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
