"""What is read of nodes, and which of them no plan can have."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.engine.surgery import (
    Mutation,
    check_refused,
    nodes,
    with_constant,
    with_input,
    with_inputs_swapped,
    with_setting,
    with_type,
)

from lipwire.engine.gpu.kernels.planning.plan import NotPlanned
from lipwire.engine.gpu.kernels.planning.planner import plan_network


def _element(op: str, index: int, slot: int) -> Mutation:
    """A weight in single precision."""

    def change(graph: onnx.GraphProto) -> None:
        with_type(nodes(graph, op)[index].input[slot], element=TensorProto.FLOAT)(graph)

    return change


LAYERS: dict[str, tuple[Mutation, str]] = {
    # The first block has the convolutions 0 to 2, the second 3 to 5.
    "a stride of two in a 1x1": (with_setting("Conv", 0, strides=[2, 2]), "Conv"),
    "a padding in a 1x1": (with_setting("Conv", 2, pads=[1, 1, 1, 1]), "Conv"),
    "an unequal stride": (with_setting("Conv", 4, strides=[2, 1]), "strides"),
    "a stride of three": (with_setting("Conv", 4, strides=[3, 3]), "Conv"),
    "a stride of one instead of two": (with_setting("Conv", 4, strides=[1, 1]), "fit"),
    "no padding": (with_setting("Conv", 1, pads=[0, 0, 0, 0]), "padded by one"),
    "an unequal padding": (with_setting("Conv", 1, pads=[1, 1, 0, 2]), "pads"),
    "padding by name": (with_setting("Conv", 1, auto_pad="SAME_UPPER"), "auto_pad"),
    "a dilation": (with_setting("Conv", 1, dilations=[2, 2]), "dilations"),
    "a depthwise one in two groups": (with_setting("Conv", 1, group=2), "groups"),
    "a depthwise one in one group": (with_setting("Conv", 1, group=1), "Conv"),
    "a 1x1 in groups": (with_setting("Conv", 3, group=8), "groups"),
    "a kernel that the weights have not": (with_setting("Conv", 1, kernel_shape=[5, 5]), "kernel"),
    "an unknown setting": (with_setting("Conv", 1, novelty=1), "novelty"),
    "a kernel of its own": (
        with_constant("Conv", 1, 1, np.ones((12, 1, 3, 3), np.float16)),
        "not fed",
    ),
    "a bias of its own": (with_constant("Conv", 1, 2, np.ones(12, np.float16)), "not fed"),
    "another kernel": (with_input("Conv", 1, 1, "w4"), "Conv"),
    "another bias": (with_input("Conv", 1, 2, "w9"), r"w9 is not fed as \(12,\)"),
    "a weight in single precision": (_element("Conv", 3, 1), "w10 is not fed"),
    "a bias in single precision": (_element("Conv", 3, 2), "w11 is not fed"),
    "a value as a weight": (with_input("Conv", 1, 1, "v6"), "v6 is not fed"),
    "kernel and picture exchanged": (with_inputs_swapped("Conv", 1), "its weights"),
    "a value that nothing makes": (with_input("Conv", 3, 0, "nothing"), "valid"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "says"), LAYERS.values(), ids=LAYERS)
def test_a_convolution_that_no_block_has_is_refused(
    small_unet: Any, mutation: Mutation, says: str
) -> None:
    check_refused(small_unet.graph, mutation, says)


# What PyTorch adds to the family's code: pictures padded to a size that they have


def _padded(
    small_unet: Any, amounts: Callable[[onnx.GraphProto, str, str], list[onnx.NodeProto]]
) -> bytes:
    """A Pad between the first Resize and its Concat, by what ``amounts`` makes of both's names."""
    model = onnx.load_from_string(small_unet.graph)
    graph = model.graph
    place = next(i for i, node in enumerate(graph.node) if node.op_type == "Resize")
    resize, concat = graph.node[place : place + 2]
    added = amounts(graph, resize.output[0], concat.input[1])
    pad = helper.make_node("Pad", [resize.output[0], "amounts"], ["padded"], mode="constant")
    concat.input[0] = "padded"
    for node in reversed([*added, pad]):
        graph.node.insert(place + 1, node)
    return bytes(model.SerializeToString())


def _constant_amounts(*amounts: int) -> Callable[[onnx.GraphProto, str, str], list[onnx.NodeProto]]:
    def make(graph: onnx.GraphProto, resized: str, skip: str) -> list[onnx.NodeProto]:
        graph.initializer.append(numpy_helper.from_array(np.array(amounts), "amounts"))
        return []

    return make


def _computed_amounts(less: int) -> Callable[[onnx.GraphProto, str, str], list[onnx.NodeProto]]:
    """By how much the skip connection is higher and wider than the picture, less ``less``."""

    def make(graph: onnx.GraphProto, resized: str, skip: str) -> list[onnx.NodeProto]:
        for name, values in {"from": [2], "to": [4], "less": [less, 0], "six": [0] * 6}.items():
            graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return [
            helper.make_node("Shape", [skip], ["skip_shape"], start=0),
            helper.make_node("Shape", [resized], ["resized_shape"]),
            helper.make_node("Sub", ["skip_shape", "resized_shape"], ["apart"]),
            helper.make_node("Slice", ["apart", "from", "to"], ["some"]),
            helper.make_node("Sub", ["some", "less"], ["added"]),
            helper.make_node("Concat", ["six", "added"], ["amounts"], axis=0),
        ]

    return make


def _batch_amounts(graph: onnx.GraphProto, resized: str, skip: str) -> list[onnx.NodeProto]:
    """One row less than there are frames."""
    for name, values in {"one": [1], "five": [0] * 5, "two": [0] * 2}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return [
        helper.make_node("Shape", [skip], ["frames"], start=0, end=1),
        helper.make_node("Sub", ["frames", "one"], ["more"]),
        helper.make_node("Concat", ["five", "two", "more"], ["amounts"], axis=0),
    ]


def _inside_amounts(graph: onnx.GraphProto, resized: str, skip: str) -> list[onnx.NodeProto]:
    """The shape of what never leaves a block."""
    return [helper.make_node("Shape", ["v8"], ["amounts"])]


def _impossible_amounts(graph: onnx.GraphProto, resized: str, skip: str) -> list[onnx.NodeProto]:
    graph.initializer.append(numpy_helper.from_array(np.array([9]), "nine"))
    return [
        helper.make_node("Shape", [skip], ["dims"]),
        helper.make_node("Gather", ["dims", "nine"], ["amounts"]),
    ]


def _speech_amounts(graph: onnx.GraphProto, resized: str, skip: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Cast", ["speech"], ["amounts"], to=TensorProto.INT64)]


@pytest.mark.parametrize("amounts", [_constant_amounts(*[0] * 8), _computed_amounts(0)])
def test_a_padding_of_nothing_is_no_step(small_unet: Any, amounts: Any) -> None:
    assert plan_network(_padded(small_unet, amounts)) == plan_network(small_unet.graph)


@pytest.mark.parametrize(
    ("amounts", "says"),
    [
        (_constant_amounts(0, 0, 0, 0, 0, 0, 0, 1), "it pads by"),
        (_computed_amounts(1), "it pads by"),
        (_batch_amounts, "it pads by"),
        (_inside_amounts, "shape of v8"),
        (_impossible_amounts, "cannot be computed"),
        (_speech_amounts, "depends on speech"),
    ],
)
def test_a_padding_is_refused(small_unet: Any, amounts: Any, says: str) -> None:
    with pytest.raises(NotPlanned, match=says):
        plan_network(_padded(small_unet, amounts))
