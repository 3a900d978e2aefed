"""The passes round a network: whatever is not just what compiling writes is refused."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tests.engine.surgery import (
    Mutation,
    as_operator,
    changed,
    check_refused,
    nodes,
    with_constant,
    with_input,
    with_inputs_swapped,
    with_output_of,
    with_setting,
    with_type,
    without,
)

from lipwire.engine.gpu.kernels.planning.planner import plan_network


def _mask(index: int, row: int) -> Mutation:
    def change(graph: onnx.GraphProto) -> None:
        tensor = {t.name: t for t in graph.initializer}[nodes(graph, "Where")[index].input[0]]
        mask = numpy_helper.to_array(tensor).copy()
        mask.reshape(-1)[row] ^= True
        tensor.CopyFrom(numpy_helper.from_array(mask, tensor.name))

    return change


def _renamed_mouth(graph: onnx.GraphProto) -> None:
    graph.output[0].name = graph.node[-1].output[0] = "x"


PASSES: dict[str, tuple[Mutation, str]] = {
    # The passes round the network
    "another mask, columns": (_mask(0, 4), "mask"),
    "another mask, rows": (_mask(1, 310), "mask"),
    "white in the mask": (with_constant("Where", 0, 1, np.uint8(255)), "wanted is 0"),
    "real and masked exchanged": (with_inputs_swapped("Concat", 0), "crop"),
    "the mask twice": (with_input("Concat", 0, 0, "v2"), "crop"),
    "no columns in the mask": (with_input("Where", 1, 1, "w1"), "mask"),
    "another order of planes": (with_setting("Transpose", 0, perm=[0, 3, 2, 1]), "perm"),
    "multiplied instead of divided": (as_operator("Div", 0, "Mul"), "crop"),
    "divided by a constant of its own": (
        with_constant("Div", 0, 1, np.float32(256)),
        "wanted is 255",
    ),
    "divided by a weight": (with_input("Div", 0, 1, "w5"), "single number"),
    "divided the other way": (with_inputs_swapped("Div", 0), "crop"),
    "rounded to another type": (with_setting("Cast", 1, to=TensorProto.BFLOAT16), "to"),
    "speech in another type": (with_setting("Cast", 2, to=TensorProto.FLOAT), "to"),
    "not times 255": (with_constant("Mul", 0, 1, np.float32(254)), "wanted is 255"),
    "a mouth that divides": (with_inputs_swapped("Mul", 0), "other way"),
    "one number in two roles": (with_input("Clip", 0, 1, "w3"), "w3 is 255 elsewhere"),
    "no upper bound": (lambda graph: nodes(graph, "Clip")[0].input.pop(), "bounds"),
    "another upper bound": (with_constant("Clip", 0, 2, np.float32(235)), "wanted is 255"),
    "another lower bound": (with_constant("Clip", 0, 1, np.float32(16)), "wanted is 0"),
    "rounded down": (as_operator("Round", 0, "Floor"), "Floor"),
    "not rounded": (without("Round", 0), "Cast"),
    "another ending": (as_operator("Sigmoid", 0, "Tanh"), "Tanh"),
    "planes left apart": (with_setting("Transpose", 1, perm=[0, 1, 2, 3]), "perm"),
    # The graph
    "a second output": (with_output_of("Relu", 0), "outputs"),
    "the ReLU is an output too": (with_output_of("Relu", 5), "outputs"),
    "another name of the mouth": (_renamed_mouth, "mouth is not"),
    "a face of another size": (with_type("face", 160, 160, 3), "face"),
    "a face in single precision": (with_type("face", element=TensorProto.FLOAT), "face"),
    "speech of another size": (with_type("speech", 32, 32), "speech"),
    "a batch for each": (with_type("speech", 2, 32, 16, 16), "batch"),
    "an operator of a stranger": (lambda graph: setattr(graph.node[8], "domain", "x.y"), "x.y"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "says"), PASSES.values(), ids=PASSES)
def test_another_pass_is_refused(small_unet: Any, mutation: Mutation, says: str) -> None:
    check_refused(small_unet.graph, mutation, says)


def test_a_number_that_an_image_has_is_told(small_unet: Any) -> None:
    graph = changed(small_unet.graph, with_input("Mul", 0, 1, "w3"))
    assert plan_network(graph).constants == (("w3", 255.0),)
    assert plan_network(small_unet.graph).constants == (("w3", 255.0),)
