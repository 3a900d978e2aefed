"""What depends on shapes alone is computed once, and no bit of a result changes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine.compile.shapefolding import fold_shapes

OPSET = 13


class Network:
    """Layers after one another, from the input "x" on."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """Add a layer; inputs that are no names become constants. The name of its output."""
        names = [name if isinstance(name, str) else self.constant(name) for name in inputs]
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], **attributes))
        return output

    def constant(self, values: Any) -> str:
        array = np.asarray(values)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def size(self, of: str, axis: int) -> str:
        return self.add("Gather", self.add("Shape", of), axis, axis=0)

    def padded_as(self, x: str, other: str) -> str:
        """``x``, with zeros around to the height and width of ``other``, as PyTorch exports it."""
        sides: list[str] = []
        for axis in (3, 2):
            lacks = self.add("Sub", self.size(other, axis), self.size(x, axis))
            before = self.add("Div", lacks, 2)
            before = self.add("Cast", before, to=TensorProto.INT64)
            both = (before, self.add("Sub", lacks, before))
            sides.extend(self.add("Unsqueeze", side, [0]) for side in both)
        four = self.add("Concat", *sides, axis=0)
        zeros = self.add(
            "ConstantOfShape", [4], value=numpy_helper.from_array(np.zeros(1, np.int64))
        )
        eight = self.add("Reshape", self.add("Concat", four, zeros, axis=0), [-1, 2])
        back = self.add("Slice", eight, [-1], [-(2**63) + 1], [0], [-1])
        pads = self.add("Reshape", self.add("Transpose", back, perm=[1, 0]), [-1])
        return self.add(
            "Pad", x, self.add("Cast", pads, to=TensorProto.INT64), 0.0, mode="constant"
        )

    def model(self, output: str, shape: Sequence[Any] = ("N", 4, 8, 8)) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            self.constants,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    network = onnx.ModelProto()
    network.CopyFrom(model)
    fold_shapes(network)
    return network


def needed(model: onnx.ModelProto) -> Counter[str]:
    """The layers that the output needs."""
    made = {node.output[0]: node for node in model.graph.node}
    found: dict[str, str] = {}
    wanted = [model.graph.output[0].name]
    while wanted:
        name = wanted.pop()
        if name in made and name not in found:
            found[name] = made[name].op_type
            wanted.extend(made[name].input)
    return Counter(found.values())


def ran(model: onnx.ModelProto, batch: int) -> np.ndarray[Any, Any]:
    x = np.random.default_rng(batch).standard_normal((batch, 4, 8, 8)).astype(np.float32)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def same(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    for batch in (1, 3):
        np.testing.assert_array_equal(ran(model, batch), ran(other, batch))


def upsampled(network: Network, x: str) -> str:
    half = network.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return network.add("Resize", half, "", [1.0, 1.0, 2.0, 2.0], mode="linear")


def test_paddings_of_nothing_go_also_where_one_follows_another() -> None:
    network, x = Network(), "x"
    for _ in range(3):
        padded = network.padded_as(upsampled(network, x), x)
        x = network.add("Relu", network.add("Add", padded, x))
    model = network.model(x)
    assert needed(model)["Pad"] == 3
    without = folded(model)
    assert needed(without) == {"MaxPool": 3, "Resize": 3, "Add": 3, "Relu": 3}
    same(model, without)


def test_paddings_of_something_stay_with_their_numbers() -> None:
    network = Network()
    smaller = network.add("MaxPool", "x", kernel_shape=[4, 3])
    padded = network.padded_as(smaller, "x")  # three rows and two columns
    nothing = network.padded_as(upsampled(network, "x"), "x")
    model = network.model(network.add("Add", padded, nothing))
    without = folded(model)
    assert needed(without) == {"MaxPool": 2, "Pad": 1, "Resize": 1, "Add": 1}
    same(model, without)


def test_slices_of_everything_go() -> None:
    network = Network()
    x = network.add("Slice", "x", [0], network.add("Unsqueeze", network.size("x", 2), [0]), [2])
    y = network.add("Slice", "x", [0, 0], [2**62, 4], [-1, 1], [1, 1])
    some = network.add("Slice", "x", [0, 0], [8, 3], [3, 2], [1, 2])
    part = network.add("Slice", "x", [1], [2**62], [2])
    model = network.model(network.add("Concat", network.add("Add", x, y), some, part, axis=2))
    without = folded(model)
    assert needed(without) == {"Slice": 2, "Add": 1, "Concat": 1}
    same(model, without)


@pytest.mark.parametrize(
    "size",
    [
        lambda network: network.size("x", 0),
        lambda network: network.add("Div", network.size("x", 0), 2),
        lambda network: network.add("Sub", network.size("x", 0), 1),
        lambda network: network.add("Div", 6, network.size("x", 0)),
    ],
    ids=["batch", "half", "less one", "quotient"],
)
def test_what_depends_on_the_batch_stays(size: Any) -> None:
    network = Network()
    end = network.add("Unsqueeze", size(network), [0])
    sliced = network.add("Slice", "x", [0], end, [0])
    model = network.model(network.add("ReduceSum", sliced, [0], keepdims=1))
    without = folded(model)
    assert needed(without) == needed(model)
    same(model, without)


def test_two_open_dimensions_are_not_taken_for_one() -> None:
    network = Network()
    padded = network.padded_as("x", network.add("Expand", "x", [1, 1, 16, 1]))
    model = network.model(padded, ("N", 4, "height", "width"))
    assert needed(folded(model))["Pad"] == 1


def test_a_padding_that_is_the_output_stays() -> None:
    network = Network()
    model = network.model(network.padded_as(upsampled(network, "x"), "x"))
    without = folded(model)
    assert needed(without) == {"MaxPool": 1, "Resize": 1, "Pad": 1}
    same(model, without)


def test_networks_with_graphs_inside_are_left_alone() -> None:
    network = Network()
    padded = network.padded_as(upsampled(network, "x"), "x")
    inner = helper.make_graph(
        [helper.make_node("Identity", [padded], ["inner"])],
        "inner",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    network.constants.append(yes)
    model = network.model(network.add("If", "yes", then_branch=inner, else_branch=inner))
    assert folded(model) == model


def test_floats_do_not_become_constants() -> None:
    network = Network()
    scale = network.add("Cast", network.size("x", 3), to=TensorProto.FLOAT)
    sliced = network.add("Slice", "x", [0], [9], [3])
    model = network.model(network.add("Mul", sliced, scale))
    without = folded(model)
    assert needed(without) == {"Cast": 1, "Mul": 1}
    same(model, without)


NUMBERS = np.array([[7, -7, 3], [-9, 4, 0]])
COMPUTED = {
    "Add": (("numbers", 5), {}),
    "Cast to int32": (("numbers",), {"to": TensorProto.INT32}),
    "Cast from floats": (("floats",), {"to": TensorProto.INT64}),
    "Concat": (("numbers", NUMBERS), {"axis": 1}),
    "ConstantOfShape": (([2, 3],), {"value": numpy_helper.from_array(np.array([4]))}),
    "Div": (("numbers", 2), {}),
    "Div by less than nothing": (("numbers", -4), {}),
    "Gather": (("numbers", [2, -1]), {"axis": 1}),
    "Identity": (("numbers",), {}),
    "Mul": (("numbers", [[2], [-3]]), {}),
    "Reshape": (("numbers", [3, -1]), {}),
    "Slice": (("numbers", [1], [3], [1]), {}),
    "Slice backwards": (("numbers", [-1], [-9], [-1], [-1]), {}),
    "Slice backwards to one": (("numbers", [2], [0], [1], [-1]), {}),
    "Slice beyond": (("numbers", [-9], [99], [1], [2]), {}),
    "Squeeze": ((NUMBERS[:, None], [1]), {}),
    "Sub": (("numbers", 5), {}),
    "Transpose": (("numbers",), {"perm": [1, 0]}),
    "Transpose all": (("numbers",), {}),
    "Unsqueeze": (("numbers", [0, -1]), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPUTED)
def test_layers_give_what_onnx_runtime_gives(name: str) -> None:
    inputs, attributes = COMPUTED[name]
    network = Network()
    numbers = network.constant(NUMBERS)
    network.constants[0].name = "numbers"
    network.constants.append(numpy_helper.from_array(NUMBERS / 2, "floats"))
    assert numbers == "c0"
    found = network.add(name.split()[0], *inputs, **attributes)
    found = network.add("Cast", found, to=TensorProto.INT64)
    flat = network.add("Reshape", network.add("Slice", found, [0], [99], [0]), [1, 1, 1, -1])
    total = network.add("ReduceSum", "x", keepdims=1)
    zeros = network.add("Cast", network.add("Mul", total, 0.0), to=TensorProto.INT64)
    model = network.model(
        network.add("Cast", network.add("Add", flat, zeros), to=TensorProto.FLOAT)
    )
    without = folded(model)
    assert needed(without) == {"Cast": 2, "Add": 1, "Mul": 1, "ReduceSum": 1}
    same(model, without)


@pytest.mark.parametrize(
    ("op", "inputs"),
    [("Div", (NUMBERS, 0)), ("Reshape", (NUMBERS, [5, -1])), ("Gather", (NUMBERS, [7]))],
)
def test_what_cannot_be_computed_is_left_to_onnx_runtime(op: str, inputs: Any) -> None:
    network = Network()
    found = network.add("Cast", network.add(op, *inputs), to=TensorProto.FLOAT)
    sliced = network.add("Slice", "x", [0], [99], [3])
    model = network.model(network.add("Add", sliced, network.add("ReduceSum", found, keepdims=0)))
    assert needed(folded(model))[op] == 1
