"""The same computation gives the same bytes, whatever things are called and listed in."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid
from lipwire.engine.compile.canonical import canonicalise, serialised
from lipwire.engine.compile.inspection import describe
from lipwire.engine.compile.sourcemodel import read_model

IO = {"input": "input", "audio": "audio"}


def _canonical(path: Path) -> bytes:
    source = read_model(path)
    info = describe(source, path.name)
    inputs = {info.input_name: "input", info.audio_name: "audio"}
    model = canonicalise(source.proto, inputs=inputs, outputs={info.output_name: "output"})
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return serialised(model)


def _write(path: Path, change: Callable[[onnx.ModelProto], None] | None = None, **kw: Any) -> Path:
    write_tiny_unet(path, **({"seed": 1} | kw))
    if change is not None:
        proto = onnx.load(path)
        change(proto)
        path.write_bytes(proto.SerializeToString())
    return path


def _comments(proto: onnx.ModelProto) -> None:
    proto.doc_string = proto.graph.doc_string = proto.graph.node[0].doc_string = "words"
    proto.metadata_props.add(key="made", value="today")
    proto.producer_name = "somebody"
    proto.graph.initializer[0].doc_string = "more words"


def _other_order(proto: onnx.ModelProto) -> None:
    tensors = list(proto.graph.initializer)[::-1]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensors)
    inputs = list(proto.graph.input)[::-1]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    first, second = proto.graph.node[0], proto.graph.node[1]
    nodes = [second, first, *list(proto.graph.node)[2:]]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _dead_layers(proto: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.ones(5, np.float32), "unused")
    proto.graph.initializer.append(tensor)
    proto.graph.node.append(helper.make_node("Relu", ["unused"], ["nowhere"]))


def _attribute_order(proto: onnx.ModelProto) -> None:
    attributes = list(proto.graph.node[0].attribute)[::-1]
    del proto.graph.node[0].attribute[:]
    proto.graph.node[0].attribute.extend(attributes)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (None, {"prefix": "another/"}),
        (None, {"constant_nodes": True}),
        (_comments, {}),
        (_other_order, {}),
        (_dead_layers, {}),
        (_attribute_order, {}),
    ],
)
def test_names_orders_and_comments_do_not_show(
    tmp_path: Path, change: Any, options: dict[str, Any]
) -> None:
    plain = _write(tmp_path / "plain.onnx")
    other = _write(tmp_path / "other.onnx", change, **options)
    assert plain.read_bytes() != other.read_bytes()
    assert _canonical(plain) == _canonical(other)


def test_what_is_computed_shows(tmp_path: Path) -> None:
    plain = _canonical(_write(tmp_path / "plain.onnx"))
    assert plain != _canonical(_write(tmp_path / "weights.onnx", seed=2))
    assert plain != _canonical(_write(tmp_path / "ending.onnx", ending="clip"))


def test_a_value_that_nothing_makes_is_refused(tmp_path: Path) -> None:
    proto = onnx.load(_write(tmp_path / "model.onnx"))
    del proto.graph.node[0]
    with pytest.raises(AvatarInvalid, match="nothing makes it"):
        canonicalise(proto, inputs=IO, outputs={"output": "output"})


def test_constants_inside_branches_come_out(tmp_path: Path) -> None:
    one = helper.make_tensor("", TensorProto.FLOAT, [1], [1.0])
    branches = {}
    for name in ("then_branch", "else_branch"):
        nodes = [
            helper.make_node("Constant", [], [f"{name}_one"], value=one),
            helper.make_node("Add", ["output_old", f"{name}_one"], [f"{name}_sum"]),
        ]
        out = helper.make_tensor_value_info(f"{name}_sum", TensorProto.FLOAT, None)
        branches[name] = helper.make_graph(nodes, name, [], [out])
    proto = onnx.load(_write(tmp_path / "model.onnx"))
    proto.graph.node[-1].output[0] = "output_old"
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    proto.graph.node.append(helper.make_node("If", ["condition"], ["output"], **branches))
    model = canonicalise(proto, inputs=IO, outputs={"output": "output"})
    inner = [
        attribute.g
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "If"
    ]
    assert [[node.op_type for node in graph.node] for graph in inner] == [["Add"], ["Add"]]
    assert sum(list(t.dims) == [1] for t in model.graph.initializer) == 2
    onnx.checker.check_model(model)


@pytest.mark.slow
def test_compiled_graphs_of_one_architecture_are_the_same_file(pair: Any) -> None:
    for form in ("pixels", "floats"):
        digests = {
            hashlib.sha256((folder / f"{form}.onnx").read_bytes()).hexdigest()
            for folder in pair.folders
        }
        recorded = {
            json.loads((folder / "model.json").read_text())["graphs"][form]["sha256"]
            for folder in pair.folders
        }
        assert len(digests) == 1
        assert digests == recorded
