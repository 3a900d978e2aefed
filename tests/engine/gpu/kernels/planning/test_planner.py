"""Plans: what is in them, what they compute, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from tests.engine.conftest import SMALL_WIDTHS
from tests.engine.reference import Halved, halve, run
from tests.engine.surgery import (
    Mutation,
    added_from_inside,
    as_operator,
    changed,
    check_refused,
    nodes,
    with_constant,
    with_input,
    with_inputs_swapped,
    with_setting,
    with_type,
    without,
)
from tests.support.compilednetworks import gpu_folder

from lipwire.bench.randomnetworks import MOBILE_WIDTHS, write_tiny_unet, write_unet
from lipwire.engine.gpu.kernels.planning.plan import (
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
from lipwire.engine.gpu.kernels.planning.planner import plan_network


def _frame(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    crop = random.integers(0, 256, (320, 320, 3), np.uint8)
    return crop, random.standard_normal((32, 16, 16), np.float32)


def _in_runtime(graph: bytes, frames: int = 1, weights: Any = None) -> Any:
    crop, speech = _frame()
    feeds = {"face": np.stack([crop] * frames), "speech": np.stack([speech] * frames)}
    session = onnxruntime.InferenceSession(graph)
    return session.run(["mouth"], feeds | (weights or {}))[0][0]


def _check_run(plan: Plan, made: Halved, wanted: Any, limit: int) -> None:
    mouth = run(plan, made.weights, *_frame())
    assert np.ptp(mouth) > 20
    apart = np.abs(mouth.astype(int) - wanted)
    assert apart.max() <= limit
    assert (apart > 0).mean() < 0.05 * limit


# What is in a plan


def test_the_published_network_is_thirty_blocks_two_convolutions_and_a_mouth(
    small_unet: Halved,
) -> None:
    plan = plan_network(small_unet.graph)
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


def test_every_weight_is_used_once_or_is_a_constant(small_unet: Halved) -> None:
    plan = plan_network(small_unet.graph)
    convolutions = [
        getattr(step, name)
        for step in plan.steps
        for name in ("expand", "depthwise", "project", "convolution")
        if hasattr(step, name)
    ]
    used = [name for layer in convolutions for name in (layer.weight, layer.bias)]
    constants = dict(plan.constants)
    assert sorted([*used, *constants]) == sorted(small_unet.weights)
    assert constants == {name: float(small_unet.weights[name]) for name in constants}


def test_avatars_of_one_architecture_have_one_plan(tmp_path: Path, small_unet: Halved) -> None:
    path = tmp_path / "other.onnx"
    write_unet(path, seed=2, widths=SMALL_WIDTHS, prefix="other/", constant_nodes=True)
    assert plan_network(halve(path, tmp_path).graph) == plan_network(small_unet.graph)


@pytest.mark.slow
def test_what_compiling_writes_is_planned(tmp_path: Path, guides: Any) -> None:
    graph = (gpu_folder(guides.folders[0]) / "pixels-half.onnx").read_bytes()
    assert graph == halve(guides.sources[0], tmp_path).graph
    assert len(plan_network(graph).steps) == 33


@pytest.mark.slow
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


@pytest.mark.slow
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
    write_unet(path, seed=4, widths=SMALL_WIDTHS, **options)
    made = halve(path, tmp_path)
    plan = plan_network(made.graph)
    frames = options.get("fixed_batch", 1)
    assert isinstance(plan.steps[-1], Mouth)
    assert plan.steps[-1].ending == ("sigmoid" if options.get("sigmoid", True) else "clip")
    _check_run(plan, made, _in_runtime(made.rounded, frames), limit=1)


@pytest.mark.slow
def test_a_tensor_is_what_the_runtime_has_there(small_unet: Halved) -> None:
    """In the middle of the network, where a step's mistake is not yet squeezed into a byte."""
    plan = plan_network(small_unet.graph)
    _, tensors = run(plan, small_unet.weights, *_frame(), keep=True)
    model = onnx.load_from_string(small_unet.graph)
    adds = [node.output[0] for node in model.graph.node if node.op_type == "Add"]
    added = [step.out for step in plan.steps if isinstance(step, InvertedResidual) and step.add]
    model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in adds
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    crop, speech = _frame()
    feeds = {"face": crop[None], "speech": speech[None], **small_unet.weights}
    for tensor, wanted in zip(added, session.run(adds, feeds), strict=True):
        scale = np.abs(wanted).max()
        apart = np.abs(tensors[tensor.number] - wanted[0].transpose(1, 2, 0).astype(np.float32))
        assert apart.max() < 0.01 * scale


# What is refused


def _full_of_the_crop(graph: onnx.GraphProto) -> None:
    full = next(node for node in nodes(graph, "Conv") if node.output[0] == "v78")
    full.input[0] = "v6"
    with_type(full.input[1], 6, 3, 3)(graph)


def _after_the_mouth(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Relu", ["v122"], ["late"]))


MUTATIONS: dict[str, tuple[Mutation, str]] = {
    # ReLU
    "no ReLU after the 1x1": (without("Relu", 0), "ReLU"),
    "no ReLU after the depthwise one": (without("Relu", 1), "Conv"),
    "another activation": (as_operator("Relu", 2, "LeakyRelu"), "ReLU"),
    "another activation after the depthwise one": (as_operator("Relu", 3, "Sigmoid"), "Sigmoid"),
    "another activation after a full one": (as_operator("Relu", 26, "Tanh"), "Tanh"),
    # Residual connections
    "another source is added": (with_input("Add", 1, 0, "v16"), "Add"),
    "a block is added to itself": (with_input("Add", 0, 0, "v21"), "Add"),
    "something inside of a block is added": (added_from_inside("Relu", 4, 0), "Relu|Conv|Add"),
    "subtracted": (as_operator("Add", 0, "Sub"), "Sub"),
    "multiplied": (as_operator("Add", 3, "Mul"), "Mul"),
    "the source comes from a block's inside": (with_input("Conv", 3, 0, "v10"), "v10"),
    "a source of another size is added": (with_setting("Conv", 7, strides=[2, 2]), "fit"),
    "the crop in a full convolution": (_full_of_the_crop, "of the crop"),
    "a layer after the mouth": (_after_the_mouth, "comes after"),
    # Resize and Concat
    "nearest": (with_setting("Resize", 0, mode="nearest"), "mode"),
    "cubic": (with_setting("Resize", 1, mode="cubic"), "mode"),
    "corners not aligned": (
        with_setting("Resize", 2, coordinate_transformation_mode="half_pixel"),
        "coordinate",
    ),
    "antialiased": (with_setting("Resize", 2, antialias=1), "antialias"),
    "some axes": (with_setting("Resize", 2, axes=[2, 3]), "axes"),
    "three times": (with_constant("Resize", 4, 2, np.array([1, 1, 3, 3], np.float32)), "scales"),
    "higher, not wider": (
        with_constant("Resize", 4, 2, np.array([1, 1, 2, 1], np.float32)),
        "scales",
    ),
    "scales that are fed": (with_input("Resize", 0, 2, "w3"), "scales"),
    "sizes": (lambda graph: nodes(graph, "Resize")[0].input.append("w2"), "scales"),
    "two times resized": (with_input("Resize", 1, 0, "v123"), "Resize|Conv"),
    "a Resize without a skip connection": (without("Concat", 2), "Resize and nothing else"),
    "a Resize of a weight": (with_input("Resize", 0, 0, "w5"), "input 0"),
    "too few channels": (without("Concat", 1), "48 inputs, it gets 24"),
    "the skip connection first": (with_inputs_swapped("Concat", 2), "resized"),
    "above each other": (with_setting("Concat", 2, axis=2), "axis"),
    "a skip connection of another size": (with_input("Concat", 2, 1, "v44"), "fit"),
    "a skip connection that comes later": (with_input("Concat", 5, 1, "v188"), "valid"),
    "three joined": (lambda graph: nodes(graph, "Concat")[1].input.append("v66"), "joins 3"),
    "one alone": (lambda graph: nodes(graph, "Concat")[1].input.pop(), "joins 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "says"), MUTATIONS.values(), ids=MUTATIONS)
def test_what_is_no_block_of_the_family_is_refused(
    small_unet: Any, mutation: Mutation, says: str
) -> None:
    check_refused(small_unet.graph, mutation, says)


def test_other_sets_of_operators_are_refused(small_unet: Halved) -> None:
    for domain, version in (("ai.onnx.ml", 3), ("", 10)):
        model = onnx.load_from_string(small_unet.graph)
        model.opset_import.append(helper.make_opsetid(domain, version))
        with pytest.raises(NotPlanned, match=f"{version}, planned|valid"):
            plan_network(model.SerializeToString())


def test_what_is_not_onnx_or_another_network_is_refused(tmp_path: Path) -> None:
    for graph in (b"", b"not a graph", b"\x08"):
        with pytest.raises(NotPlanned):
            plan_network(graph)
    write_tiny_unet(tmp_path / "tiny.onnx", seed=1)
    with pytest.raises(NotPlanned, match="Conv"):
        plan_network(halve(tmp_path / "tiny.onnx", tmp_path).graph)


VARIANTS: dict[str, Mutation] = {
    "no sigmoid": without("Sigmoid", 0),
    "a full convolution without ReLU": without("Relu", 26),
    "speech before the picture": with_inputs_swapped("Concat", 1),
    "the block before its source": with_inputs_swapped("Add", 0),
    "no residual connection": lambda graph: nodes(graph, "Concat")[1].input.__setitem__(1, "v87"),
    "a 1x1 without bias": lambda graph: nodes(graph, "Conv")[0].input.pop(),
    "a depthwise one without bias": lambda graph: nodes(graph, "Conv")[4].input.pop(),
    "one kernel for two": with_input("Conv", 12, 1, "w16"),
    "an older skip connection": with_input("Concat", 2, 1, "v49"),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutation", VARIANTS.values(), ids=VARIANTS)
def test_a_variant_is_planned_as_it_is(small_unet: Halved, mutation: Mutation) -> None:
    graph = changed(small_unet.graph, mutation)
    wanted = _in_runtime(graph, weights=small_unet.weights)
    _check_run(plan_network(graph), small_unet, wanted, limit=1)
