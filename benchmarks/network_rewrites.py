"""What it is worth to rewrite a network before it is run on a processor, one rewriting at a time.

    python benchmarks/network_rewrites.py [ROUNDS]

The demo avatar's network, and the SyncTalk_2D family's at mobile and at published widths, with
random weights, as PyTorch exports it: with a padding of nothing after each doubling. Printed are
medians, over alternated rounds, of the processor time of one frame on one thread:

- paddings: with them as exported, against without (``engine.compile.shapefolding``), in float32;
- split: with each "concatenate, then a 1x1 convolution" as two convolutions that are added, in
  float32 by ONNX Runtime, and in bfloat16 by OpenVINO where the processor has units for it;
- frame alone: what the layers take that depend on the frame alone, not on the speech, and how large
  what they hand on is: it could be kept for each frame of an avatar.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import helper, numpy_helper

from lipwire.avatars import Avatar, find_avatar
from lipwire.bench.randomnetworks import FULL_WIDTHS, MOBILE_WIDTHS, write_unet
from lipwire.config.machine import describe_machine
from lipwire.engine.compile import wrapping
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.sourcemodel import read_model
from lipwire.engine.forms import FACE, MOUTH, SPEECH
from lipwire.engine.runtime import open_session, session_options
from lipwire.engine.special.openvino import SpecialisedNetwork, specialise, why_not

FRAMES = 4
RANDOM = np.random.default_rng(0)
CROPS = RANDOM.integers(0, 256, (1, 320, 320, 3), np.uint8)
WINDOWS = RANDOM.standard_normal((1, 32, 16, 16)).astype(np.float32)


def wrapped(model: onnx.ModelProto, folded: bool = True) -> onnx.ModelProto:
    """``model`` with the passes of the form *pixels*."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        onnx.save(model, path)
        read = read_model(path)
        with nullcontext() if folded else patch.object(wrapping, "fold_shapes"):
            return wrapping.wrap(read.proto, describe(read, path.name), "pixels", 1)


def with_paddings(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with a padding after each Resize to the size of what it is concatenated with."""
    graph = model.graph
    joined = {node.input[0]: node.input[1] for node in graph.node if node.op_type == "Concat"}
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], **attributes: Any) -> str:
        output = f"pad_{len(nodes)}"
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(name: str, values: Any) -> str:
        if all(tensor.name != name for tensor in graph.initializer):
            graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    for node in graph.node:
        nodes.append(node)
        if node.op_type != "Resize" or node.output[0] not in joined:
            continue
        before = node.output[0]
        node.output[0] = f"{before}_doubled"
        sides = []
        for axis in (2, 3):
            sizes = [
                add("Gather", [add("Shape", [of]), constant(f"axis_{axis}", np.array([axis]))])
                for of in (joined[before], node.output[0])
            ]
            lacks = add("Sub", sizes)
            half = add("Div", [lacks, constant("two", np.array([2]))])
            sides.append((half, add("Sub", [lacks, half])))
        none = constant("none", np.zeros(2, np.int64))
        (top, bottom), (left, right) = sides
        pads = add("Concat", [none, top, left, none, bottom, right], axis=0)
        nodes.append(helper.make_node("Pad", [node.output[0], pads], [before]))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    """``model`` with two convolutions in place of each Concat before a 1x1 convolution, and how
    many there were."""
    graph = model.graph
    shaped = onnx.shape_inference.infer_shapes(model).graph
    channels = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in shaped.value_info}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, []).append(node)
    gone: list[onnx.NodeProto] = []
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        made = next((n for n in graph.node if n.output[0] == node.input[0]), None)
        fits = (
            node.op_type == "Conv"
            and made is not None
            and made.op_type == "Concat"
            and len(made.input) == 2
            and len(uses[made.output[0]]) == 1
            and weights[node.input[1]].dims[2:] == [1, 1]
        )
        if not fits or made is None:
            nodes.append(node)
            continue
        first = channels[made.input[0]]
        values = numpy_helper.to_array(weights[node.input[1]])
        halves = []
        for number, part in enumerate((values[:, :first], values[:, first:])):
            name = f"{node.input[1]}_half_{number}"
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(part), name))
            bias = list(node.input[2:]) if number == 0 else []
            half = f"{node.output[0]}_half_{number}"
            nodes.append(helper.make_node("Conv", [made.input[number], name, *bias], [half]))
            halves.append(half)
        nodes.append(helper.make_node("Add", halves, [node.output[0]]))
        gone.append(made)
        count += 1
    del graph.node[:]
    graph.node.extend(node for node in nodes if node not in gone)
    return model, count


def frame_alone(model: onnx.ModelProto) -> tuple[onnx.ModelProto | None, float]:
    """The layers that depend on the frame alone, as a network, and the MB of what they hand on;
    None where that is the input."""
    graph = model.graph
    heard = {SPEECH}
    for node in graph.node:
        if heard & set(node.input):
            heard.update(node.output)
    fixed = {tensor.name for tensor in graph.initializer}
    before = [node for node in graph.node if node.output[0] not in heard]
    made = {node.output[0] for node in before}
    handed = sorted(
        {n for node in graph.node if node.output[0] in heard for n in node.input} & made - fixed
    )
    shaped = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    if not handed:
        return None, 0.0
    values = sum(
        int(np.prod([d.dim_value for d in shaped[name].type.tensor_type.shape.dim]))
        for name in handed
    )
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.output[:]
    part.graph.node.extend(before)
    part.graph.output.extend(shaped[name] for name in handed)
    keep = [value for value in part.graph.input if value.name == FACE]
    del part.graph.input[:]
    part.graph.input.extend(keep)
    return part, values * 4 / 1e6


def runs(model: onnx.ModelProto, outputs: list[str] | None) -> Callable[[], Any]:
    session = open_session(
        model.SerializeToString(), session_options(threads=1, optimisation="full")
    )
    given = {FACE: CROPS, SPEECH: WINDOWS}
    names = {value.name for value in session.get_inputs()}
    return lambda: session.run(outputs, {name: given[name] for name in names})


def runs_in_bfloat16(model: onnx.ModelProto) -> Callable[[], Any]:
    network = SpecialisedNetwork(specialise(model.SerializeToString(), 1), 1)
    out = np.empty_like(CROPS)
    return lambda: network.run(CROPS, WINDOWS, out)


def compared(rounds: int, *each: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Median milliseconds of each, and median of the ratios to the first one."""
    took: list[list[float]] = [[] for _ in each]
    for run in each:
        run()
    for _ in range(rounds):
        for run, found in zip(each, took, strict=True):
            begun = time.process_time()
            for _ in range(FRAMES):
                run()
            found.append((time.process_time() - begun) / FRAMES * 1000)
    ratios = [
        statistics.median(one / first for one, first in zip(found, took[0], strict=True))
        for found in took
    ]
    return [statistics.median(found) for found in took], ratios


def told(what: str, rounds: int, *each: Callable[[], Any]) -> None:
    ms, ratios = compared(rounds, *each)
    print(f"  {what}: {ms[0]:.1f} ms, then {ms[1]:.1f} ms ({ratios[1]:.3f} times)", flush=True)


def networks() -> dict[str, onnx.ModelProto]:
    found = {}
    with Avatar.open(find_avatar("demo")) as demo:
        found["demo"] = onnx.load(demo.network_source or demo.model_path)
    with tempfile.TemporaryDirectory() as folder:
        for name, widths in (("mobile", MOBILE_WIDTHS), ("published", FULL_WIDTHS)):
            path = Path(folder, f"{name}.onnx")
            write_unet(path, seed=0, widths=widths)
            found[name] = with_paddings(onnx.load(path))
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    for name, model in networks().items():
        print(name)
        exported, without = wrapped(model, folded=False), wrapped(model)
        paddings = sum(node.op_type == "Pad" for node in exported.graph.node)
        if paddings:
            told(f"{paddings} paddings", rounds, runs(exported, [MOUTH]), runs(without, [MOUTH]))
        halved, count = split(wrapped(model))
        told(f"{count} split", rounds, runs(without, [MOUTH]), runs(halved, [MOUTH]))
        if why_not() is None:
            told(
                f"{count} split, in bfloat16",
                rounds,
                runs_in_bfloat16(without),
                runs_in_bfloat16(halved),
            )
        part, size_mb = frame_alone(without)
        if part is not None:
            ms, ratios = compared(rounds, runs(without, [MOUTH]), runs(part, None))
            print(
                f"  frame alone: {ms[1]:.1f} of {ms[0]:.1f} ms ({ratios[1]:.2f}), hands on"
                f" {size_mb:.1f} MB a frame in float32"
            )
    print(describe_machine().line())


if __name__ == "__main__":
    main()
