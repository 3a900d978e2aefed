"""Networks of the guide's shapes that are made to use up a machine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def with_layers(path: Path, layers: Sequence[NodeProto], last: str, **constants: object) -> None:
    """Let the network at ``path`` add a thousandth of the mean of the tensor ``last`` to its
    output.

    ``layers`` make ``last``, of the network's input ``input`` and of ``constants``, arrays by name.
    """
    proto = onnx.load(path)
    graph = proto.graph
    for name, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.001), "share"))
    output = graph.output[0].name
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = "sound"
    graph.node.extend(layers)
    graph.node.extend(
        [
            helper.make_node("ReduceMean", [last], ["mean"], keepdims=0),
            helper.make_node("Mul", ["mean", "share"], ["little"]),
            helper.make_node("Add", ["sound", "little"], [output]),
        ]
    )
    path.write_bytes(proto.SerializeToString())


def allocate_endlessly(path: Path) -> None:
    """Let the network make a tensor of 160 GB, whose size only running it shows."""
    layers = [
        helper.make_node("ReduceMax", ["input"], ["brightest"], keepdims=0),
        helper.make_node("Ceil", ["brightest"], ["one"]),
        helper.make_node("Mul", ["one", "many"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["shape"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
    ]
    with_layers(path, layers, "huge", many=np.array([200_000, 200_000], np.float32))


def run_for_minutes(path: Path) -> None:
    """Let the network multiply matrices for many minutes, each of a size that is allowed."""
    side = 4096
    layers = [
        helper.make_node("ReduceMax", ["input"], ["brightest"], keepdims=0),
        helper.make_node("Expand", ["brightest", "square"], ["product0"]),
    ]
    for index in range(2000):
        # Averaged again each time: it stays a number.
        layers += [
            helper.make_node("MatMul", [f"product{index}"] * 2, [f"sum{index}"]),
            helper.make_node("Mul", [f"sum{index}", "scale"], [f"product{index + 1}"]),
        ]
    scale = np.float32(1 / side)
    with_layers(path, layers, "product2000", square=np.array([side, side]), scale=scale)


def loop_for_ever(path: Path) -> None:
    """Let the network have a loop of 2^62 turns."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["goes"]),
            helper.make_node("Add", ["value", "value"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    layers = [
        helper.make_node("ReduceMax", ["input"], ["brightest"], keepdims=0),
        helper.make_node("Loop", ["turns", "on", "brightest"], ["looped"], body=body),
    ]
    with_layers(path, layers, "looped", turns=np.array(1 << 62), on=np.array(True))
