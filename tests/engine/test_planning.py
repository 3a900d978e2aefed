"""Plans: what is in them, what they compute, and what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.engine.reference import Halved, halve, run

from lipwire.bench.models import MOBILE_WIDTHS, write_tiny_unet, write_unet
from lipwire.engine.plan import (
    FullConvolution,
    InvertedResidual,
    Joined,
    Mouth,
    NotPlanned,
    Pixels,
    Plain,
    Plan,
    Speech,
)
from lipwire.engine.planning import plan_network

SMALL = (8, 8, 16, 16, 24)

Graph = onnx.GraphProto
Mutation = Callable[[Graph], None]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Halved:
    folder = tmp_path_factory.mktemp("small")
    write_unet(folder / "model.onnx", seed=1, widths=SMALL)
    return halve(folder / "model.onnx", folder)


def _frame(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    crop = random.integers(0, 256, (320, 320, 3), np.uint8)
    return crop, random.standard_normal((32, 16, 16), np.float32)


def _in_runtime(graph: bytes, frames: int = 1, **weights: Any) -> Any:
    crop, speech = _frame()
    feeds = {"face": np.stack([crop] * frames), "speech": np.stack([speech] * frames)}
    session = onnxruntime.InferenceSession(graph)
    return session.run(["mouth"], feeds | weights)[0][0]


def _check_run(plan: Plan, made: Halved, wanted: Any, limit: int) -> None:
    mouth = run(plan, made.weights, *_frame())
    assert np.ptp(mouth) > 20
    apart = np.abs(mouth.astype(int) - wanted)
    assert apart.max() <= limit
    assert (apart > 0).mean() < 0.05 * limit


# What is in a plan


def test_the_published_network_is_thirty_blocks_two_convolutions_and_a_mouth(small: Halved) -> None:
    plan = plan_network(small.graph)
    assert [tensor.number for tensor in plan.tensors] == list(range(32))
    made = [step.out for step in plan.steps if not isinstance(step, Mouth)]
    assert made == list(plan.tensors)
    first, *down = plan.steps[:11]
    assert isinstance(first, InvertedResidual)
    assert (first.source, first.stride, first.add) == (Pixels(), 1, False)
    assert (first.expand.inputs, first.depthwise.outputs, first.project.outputs) == (6, 12, 8)
    for one, two in zip(down[::2], down[1::2], strict=True):
        assert isinstance(one, InvertedResidual)
        assert isinstance(two, InvertedResidual)
        assert (one.stride, one.add, two.stride, two.add) == (2, False, 1, True)
        assert two.source == Plain(one.out)
        assert isinstance(one.source, Plain)
        assert one.out.height * 2 == one.source.tensor.height
    heard = plan.steps[11:18]
    assert isinstance(heard[0], InvertedResidual)
    assert heard[0].source == Speech()
    full = [step for step in plan.steps if isinstance(step, FullConvolution)]
    assert [(step.stride, step.padding, step.relu) for step in full] == [(1, 1, True), (2, 3, True)]
    assert full == [heard[2], heard[4]]
    joins = [step for step in plan.steps if isinstance(getattr(step, "source", None), Joined)]
    assert [
        (join.source.first.number, join.source.doubled, join.source.second.number)
        for join in joins
        if isinstance(join, InvertedResidual) and isinstance(join.source, Joined)
    ] == [
        (10, False, 17), (21, True, 8), (23, True, 6), (25, True, 4), (27, True, 2), (29, True, 0)
    ]  # fmt: skip
    assert isinstance(plan.steps[-1], Mouth)
    assert (plan.steps[-1].source.number, plan.steps[-1].ending) == (31, "sigmoid")


def test_every_weight_is_used_once_or_is_a_constant(small: Halved) -> None:
    plan = plan_network(small.graph)
    convolutions = [
        getattr(step, name)
        for step in plan.steps
        for name in ("expand", "depthwise", "project", "convolution")
        if hasattr(step, name)
    ]
    used = [name for layer in convolutions for name in (layer.weight, layer.bias)]
    constants = dict(plan.constants)
    assert sorted([*used, *constants]) == sorted(small.weights)
    assert constants == {name: float(small.weights[name]) for name in constants}


def test_avatars_of_one_architecture_have_one_plan(tmp_path: Path, small: Halved) -> None:
    path = tmp_path / "other.onnx"
    write_unet(path, seed=2, widths=SMALL, prefix="other/", constant_nodes=True)
    assert plan_network(halve(path, tmp_path).graph) == plan_network(small.graph)


def test_what_compiling_writes_is_planned(tmp_path: Path, compiled: Any) -> None:
    write_unet(tmp_path / "model.onnx", seed=3, widths=(8, 8, 16, 16, 16), opset=13)
    graph = (compiled(tmp_path / "model.onnx") / "pixels-half.onnx").read_bytes()
    assert graph == halve(tmp_path / "model.onnx", tmp_path).graph
    assert len(plan_network(graph).steps) == 33


def test_tensors_have_the_networks_sizes(tmp_path: Path) -> None:
    write_unet(tmp_path / "model.onnx", seed=1, widths=MOBILE_WIDTHS)
    plan = plan_network(halve(tmp_path / "model.onnx", tmp_path).graph)
    sizes = [(tensor.height, tensor.channels) for tensor in plan.tensors if tensor.number % 2 == 0]
    assert all(tensor.height == tensor.width for tensor in plan.tensors)
    assert sizes == [
        (320, 16), (160, 16), (80, 32), (40, 64), (20, 128), (10, 256),  # seen
        (16, 64), (16, 128), (10, 256),  # heard, with the 16x16 block of 128 twice
        (10, 256), (10, 128), (20, 64), (40, 32), (80, 16), (160, 16), (320, 8),
    ]  # fmt: skip


# What a plan computes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sigmoid": False, "opset": 11},
        {"constant_nodes": True, "opset": 13},
        {"fixed_batch": 2},
    ],
    ids=str,
)
def test_a_plan_makes_the_networks_mouths(
    tmp_path: Path, oracle: Any, options: dict[str, Any]
) -> None:
    path = tmp_path / "model.onnx"
    write_unet(path, seed=4, widths=SMALL, **options)
    made = halve(path, tmp_path)
    plan = plan_network(made.graph)
    frames = options.get("fixed_batch", 1)
    assert isinstance(plan.steps[-1], Mouth)
    assert plan.steps[-1].ending == ("sigmoid" if options.get("sigmoid", True) else "clip")
    _check_run(plan, made, _in_runtime(made.rounded, frames), limit=1)


def test_a_tensor_is_what_the_runtime_has_there(small: Halved) -> None:
    """In the middle of the network, where a step's mistake is not yet squeezed into a byte."""
    plan = plan_network(small.graph)
    _, tensors = run(plan, small.weights, *_frame(), keep=True)
    model = onnx.load_from_string(small.graph)
    adds = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
    added = [step.out for step in plan.steps if isinstance(step, InvertedResidual) and step.add]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in adds
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    crop, speech = _frame()
    feeds = {"face": crop[None], "speech": speech[None], **small.weights}
    for tensor, wanted in zip(added, session.run(adds, feeds), strict=True):
        scale = np.abs(wanted).max()
        apart = np.abs(tensors[tensor.number] - wanted[0].transpose(1, 2, 0).astype(np.float32))
        assert apart.max() < 0.01 * scale


# What is refused


def _nodes(graph: Graph, op: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == op]


def _set(node: onnx.NodeProto, **values: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(*item) for item in values.items())


def _setting(op: str, index: int, **values: Any) -> Mutation:
    return lambda graph: _set(_nodes(graph, op)[index], **values)


def _as(op: str, index: int, other: str) -> Mutation:
    return lambda graph: setattr(_nodes(graph, op)[index], "op_type", other)


def _input(op: str, index: int, slot: int, name: str) -> Mutation:
    def change(graph: Graph) -> None:
        _nodes(graph, op)[index].input[slot] = name

    return change


def _without(op: str, index: int) -> Mutation:
    """The node is gone; those after it read what it read."""

    def change(graph: Graph) -> None:
        gone = _nodes(graph, op)[index]
        graph.node.remove(gone)
        for node in graph.node:
            node.input[:] = [gone.input[0] if x == gone.output[0] else x for x in node.input]

    return change


def _constant(op: str, index: int, slot: int, values: Any) -> Mutation:
    """An input of its own, which is in the graph."""

    def change(graph: Graph) -> None:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), "changed"))
        _nodes(graph, op)[index].input[slot] = "changed"

    return change


def _swapped(op: str, index: int) -> Mutation:
    def change(graph: Graph) -> None:
        node = _nodes(graph, op)[index]
        node.input[:2] = [node.input[1], node.input[0]]

    return change


def _also_out(op: str, index: int) -> Mutation:
    def change(graph: Graph) -> None:
        name = _nodes(graph, op)[index].output[0]
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, [*"NCHW"]))

    return change


def _also_used(op: str, index: int, after: int) -> Mutation:
    """Another residual connection reaches into a block."""

    def change(graph: Graph) -> None:
        _nodes(graph, "Add")[after].input[0] = _nodes(graph, op)[index].output[0]

    return change


def _mask(index: int, row: int) -> Mutation:
    def change(graph: Graph) -> None:
        tensor = {t.name: t for t in graph.initializer}[_nodes(graph, "Where")[index].input[0]]
        mask = numpy_helper.to_array(tensor).copy()
        mask.reshape(-1)[row] ^= True
        tensor.CopyFrom(numpy_helper.from_array(mask, tensor.name))

    return change


def _shaped(name: str, *dims: int, element: int | None = None) -> Mutation:
    def change(graph: Graph) -> None:
        kind = {v.name: v.type.tensor_type for v in (*graph.input, *graph.output)}[name]
        for dim, size in zip(kind.shape.dim[-len(dims) :] if dims else [], dims, strict=True):
            dim.dim_value = size
        kind.elem_type = element or kind.elem_type

    return change


def _element(op: str, index: int, slot: int) -> Mutation:
    """A weight in single precision."""

    def change(graph: Graph) -> None:
        _shaped(_nodes(graph, op)[index].input[slot], element=TensorProto.FLOAT)(graph)

    return change


def _renamed_mouth(graph: Graph) -> None:
    graph.output[0].name = graph.node[-1].output[0] = "x"


MUTATIONS: dict[str, tuple[Mutation, str]] = {
    # Convolutions: the first block has 0 to 2, the second 3 to 5; 31 is the first full one.
    "a stride of two in a 1x1": (_setting("Conv", 0, strides=[2, 2]), "Conv"),
    "a padding in a 1x1": (_setting("Conv", 2, pads=[1, 1, 1, 1]), "Conv"),
    "an unequal stride": (_setting("Conv", 4, strides=[2, 1]), "strides"),
    "a stride of three": (_setting("Conv", 4, strides=[3, 3]), "Conv"),
    "a stride of one instead of two": (_setting("Conv", 4, strides=[1, 1]), "fit"),
    "no padding": (_setting("Conv", 1, pads=[0, 0, 0, 0]), "padded by one"),
    "an unequal padding": (_setting("Conv", 1, pads=[1, 1, 0, 2]), "pads"),
    "padding by name": (_setting("Conv", 1, auto_pad="SAME_UPPER"), "auto_pad"),
    "a dilation": (_setting("Conv", 1, dilations=[2, 2]), "dilations"),
    "a depthwise one in two groups": (_setting("Conv", 1, group=2), "groups"),
    "a depthwise one in one group": (_setting("Conv", 1, group=1), "Conv"),
    "a 1x1 in groups": (_setting("Conv", 3, group=8), "groups"),
    "a kernel that the weights have not": (_setting("Conv", 1, kernel_shape=[5, 5]), "kernel"),
    "an unknown setting": (_setting("Conv", 1, novelty=1), "novelty"),
    "a kernel of its own": (_constant("Conv", 1, 1, np.ones((12, 1, 3, 3), np.float16)), "not fed"),
    "a bias of its own": (_constant("Conv", 1, 2, np.ones(12, np.float16)), "not fed"),
    "another kernel": (_input("Conv", 1, 1, "w4"), "Conv"),
    "another bias": (_input("Conv", 1, 2, "w9"), r"w9 is not fed as \(12,\)"),
    "a weight in single precision": (_element("Conv", 3, 1), "w10 is not fed"),
    "a bias in single precision": (_element("Conv", 3, 2), "w11 is not fed"),
    "a value as a weight": (_input("Conv", 1, 1, "v6"), "v6 is not fed"),
    "a value that nothing makes": (_input("Conv", 3, 0, "nothing"), "valid"),
    # ReLU
    "no ReLU after the 1x1": (_without("Relu", 0), "ReLU"),
    "no ReLU after the depthwise one": (_without("Relu", 1), "Conv"),
    "another activation": (_as("Relu", 2, "LeakyRelu"), "ReLU"),
    "another activation after the depthwise one": (_as("Relu", 3, "Sigmoid"), "Sigmoid"),
    "another activation after a full one": (_as("Relu", 26, "Tanh"), "Tanh"),
    # Residual connections
    "another source is added": (_input("Add", 1, 0, "v16"), "Add"),
    "a block is added to itself": (_input("Add", 0, 0, "v21"), "Add"),
    "something inside of a block is added": (_also_used("Relu", 4, 0), "Relu|Conv|Add"),
    "subtracted": (_as("Add", 0, "Sub"), "Sub"),
    "multiplied": (_as("Add", 3, "Mul"), "Mul"),
    "the source comes from a block's inside": (_input("Conv", 3, 0, "v10"), "v10"),
    # Resize and Concat
    "nearest": (_setting("Resize", 0, mode="nearest"), "mode"),
    "cubic": (_setting("Resize", 1, mode="cubic"), "mode"),
    "corners not aligned": (
        _setting("Resize", 2, coordinate_transformation_mode="half_pixel"),
        "coordinate",
    ),
    "antialiased": (_setting("Resize", 2, antialias=1), "antialias"),
    "some axes": (_setting("Resize", 2, axes=[2, 3]), "axes"),
    "three times": (_constant("Resize", 4, 2, np.float32([1, 1, 3, 3])), "scales"),
    "higher, not wider": (_constant("Resize", 4, 2, np.float32([1, 1, 2, 1])), "scales"),
    "scales that are fed": (_input("Resize", 0, 2, "w3"), "scales"),
    "sizes": (lambda graph: _nodes(graph, "Resize")[0].input.append("w2"), "scales"),
    "two times resized": (_input("Resize", 1, 0, "v123"), "Resize|Conv"),
    "the skip connection first": (_swapped("Concat", 2), "resized"),
    "above each other": (_setting("Concat", 2, axis=2), "axis"),
    "a skip connection of another size": (_input("Concat", 2, 1, "v44"), "fit"),
    "a skip connection that comes later": (_input("Concat", 5, 1, "v188"), "valid"),
    "three joined": (lambda graph: _nodes(graph, "Concat")[1].input.append("v66"), "joins 3"),
    "one alone": (lambda graph: _nodes(graph, "Concat")[1].input.pop(), "joins 1"),
    # The passes round the network
    "another mask, columns": (_mask(0, 4), "mask"),
    "another mask, rows": (_mask(1, 310), "mask"),
    "white in the mask": (_constant("Where", 0, 1, np.uint8(255)), "wanted is 0"),
    "real and masked exchanged": (_swapped("Concat", 0), "crop"),
    "the mask twice": (_input("Concat", 0, 0, "v2"), "crop"),
    "no columns in the mask": (_input("Where", 1, 1, "w1"), "mask"),
    "another order of planes": (_setting("Transpose", 0, perm=[0, 3, 2, 1]), "perm"),
    "multiplied instead of divided": (_as("Div", 0, "Mul"), "crop"),
    "divided by a constant of its own": (_constant("Div", 0, 1, np.float32(256)), "wanted is 255"),
    "divided by a weight": (_input("Div", 0, 1, "w5"), "single number"),
    "divided the other way": (_swapped("Div", 0), "crop"),
    "rounded to another type": (_setting("Cast", 1, to=TensorProto.BFLOAT16), "to"),
    "speech in another type": (_setting("Cast", 2, to=TensorProto.FLOAT), "to"),
    "not times 255": (_constant("Mul", 0, 1, np.float32(254)), "wanted is 255"),
    "no upper bound": (lambda graph: _nodes(graph, "Clip")[0].input.pop(), "bounds"),
    "another upper bound": (_constant("Clip", 0, 2, np.float32(235)), "wanted is 255"),
    "another lower bound": (_constant("Clip", 0, 1, np.float32(16)), "wanted is 0"),
    "rounded down": (_as("Round", 0, "Floor"), "Floor"),
    "not rounded": (_without("Round", 0), "Cast"),
    "another ending": (_as("Sigmoid", 0, "Tanh"), "Tanh"),
    "planes left apart": (_setting("Transpose", 1, perm=[0, 1, 2, 3]), "perm"),
    # The graph
    "a second output": (_also_out("Relu", 0), "outputs"),
    "the ReLU is an output too": (_also_out("Relu", 5), "outputs"),
    "another name of the mouth": (_renamed_mouth, "mouth is not"),
    "a face of another size": (_shaped("face", 160, 160, 3), "face"),
    "a face in single precision": (_shaped("face", element=TensorProto.FLOAT), "face"),
    "speech of another size": (_shaped("speech", 32, 32), "speech"),
    "a batch for each": (_shaped("speech", 2, 32, 16, 16), "batch"),
    "an operator of a stranger": (lambda graph: setattr(graph.node[8], "domain", "x.y"), "x.y"),
}


@pytest.mark.parametrize(("mutation", "says"), MUTATIONS.values(), ids=MUTATIONS)
def test_what_is_no_block_of_the_family_is_refused(
    small: Halved, mutation: Mutation, says: str
) -> None:
    model = onnx.load_from_string(small.graph)
    mutation(model.graph)
    changed = model.SerializeToString()
    assert changed != small.graph
    with pytest.raises(NotPlanned, match=says) as refused:
        plan_network(changed)
    assert "\n" not in str(refused.value)


def test_what_is_not_onnx_or_another_network_is_refused(tmp_path: Path) -> None:
    for graph in (b"", b"not a graph", b"\x08"):
        with pytest.raises(NotPlanned):
            plan_network(graph)
    write_tiny_unet(tmp_path / "tiny.onnx", seed=1)
    with pytest.raises(NotPlanned, match="Conv"):
        plan_network(halve(tmp_path / "tiny.onnx", tmp_path).graph)


# What PyTorch adds to the family's code: pictures padded to a size that they have


def _padded(small: Halved, amounts: Callable[[Graph, str, str], list[onnx.NodeProto]]) -> bytes:
    """A Pad between the first Resize and its Concat, by what ``amounts`` makes of both's names."""
    model = onnx.load_from_string(small.graph)
    graph = model.graph
    place = next(i for i, node in enumerate(graph.node) if node.op_type == "Resize")
    resize, concat = graph.node[place : place + 2]
    added = amounts(graph, resize.output[0], concat.input[1])
    pad = helper.make_node("Pad", [resize.output[0], "amounts"], ["padded"], mode="constant")
    concat.input[0] = "padded"
    for node in reversed([*added, pad]):
        graph.node.insert(place + 1, node)
    return bytes(model.SerializeToString())


def _constant_amounts(*amounts: int) -> Callable[[Graph, str, str], list[onnx.NodeProto]]:
    def make(graph: Graph, resized: str, skip: str) -> list[onnx.NodeProto]:
        graph.initializer.append(numpy_helper.from_array(np.array(amounts), "amounts"))
        return []

    return make


def _computed_amounts(less: int) -> Callable[[Graph, str, str], list[onnx.NodeProto]]:
    """By how much the skip connection is higher and wider than the picture, less ``less``."""

    def make(graph: Graph, resized: str, skip: str) -> list[onnx.NodeProto]:
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


def _batch_amounts(graph: Graph, resized: str, skip: str) -> list[onnx.NodeProto]:
    """One row less than there are frames."""
    for name, values in {"one": [1], "five": [0] * 5, "two": [0] * 2}.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return [
        helper.make_node("Shape", [skip], ["frames"], start=0, end=1),
        helper.make_node("Sub", ["frames", "one"], ["more"]),
        helper.make_node("Concat", ["five", "two", "more"], ["amounts"], axis=0),
    ]


def _speech_amounts(graph: Graph, resized: str, skip: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Cast", ["speech"], ["amounts"], to=TensorProto.INT64)]


@pytest.mark.parametrize("amounts", [_constant_amounts(*[0] * 8), _computed_amounts(0)])
def test_a_padding_of_nothing_is_no_step(small: Halved, amounts: Any) -> None:
    assert plan_network(_padded(small, amounts)) == plan_network(small.graph)


@pytest.mark.parametrize(
    ("amounts", "says"),
    [
        (_constant_amounts(0, 0, 0, 0, 0, 0, 0, 1), "it pads by"),
        (_computed_amounts(1), "it pads by"),
        (_batch_amounts, "it pads by"),
        (_speech_amounts, "depends on speech"),
    ],
)
def test_a_padding_is_refused(small: Halved, amounts: Any, says: str) -> None:
    with pytest.raises(NotPlanned, match=says):
        plan_network(_padded(small, amounts))
