"""Graphs changed in one place, for tests of what planning makes of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine.gpu.kernels.planning.plan import NotPlanned
from lipwire.engine.gpu.kernels.planning.planner import plan_network

Mutation = Callable[[onnx.GraphProto], None]


def changed(graph: bytes, mutation: Mutation) -> bytes:
    """``graph`` after ``mutation``, which did something."""
    model = onnx.load_from_string(graph)
    mutation(model.graph)
    data = bytes(model.SerializeToString())
    assert data != graph
    return data


def check_refused(graph: bytes, mutation: Mutation, says: str) -> None:
    """That no plan is made of the changed graph, with one line that matches ``says``."""
    with pytest.raises(NotPlanned, match=says) as refused:
        plan_network(changed(graph, mutation))
    assert "\n" not in str(refused.value)


def nodes(graph: onnx.GraphProto, op: str) -> list[onnx.NodeProto]:
    return [node for node in graph.node if node.op_type == op]


def set_attributes(node: onnx.NodeProto, **values: Any) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in values]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(*item) for item in values.items())


def with_setting(op: str, index: int, **values: Any) -> Mutation:
    return lambda graph: set_attributes(nodes(graph, op)[index], **values)


def as_operator(op: str, index: int, other: str) -> Mutation:
    return lambda graph: setattr(nodes(graph, op)[index], "op_type", other)


def with_input(op: str, index: int, slot: int, name: str) -> Mutation:
    def change(graph: onnx.GraphProto) -> None:
        nodes(graph, op)[index].input[slot] = name

    return change


def without(op: str, index: int) -> Mutation:
    """The node is gone; those after it read what it read."""

    def change(graph: onnx.GraphProto) -> None:
        gone = nodes(graph, op)[index]
        graph.node.remove(gone)
        for node in graph.node:
            node.input[:] = [gone.input[0] if x == gone.output[0] else x for x in node.input]

    return change


def with_constant(op: str, index: int, slot: int, values: Any) -> Mutation:
    """An input of its own, which is in the graph."""

    def change(graph: onnx.GraphProto) -> None:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), "changed"))
        nodes(graph, op)[index].input[slot] = "changed"

    return change


def with_inputs_swapped(op: str, index: int) -> Mutation:
    def change(graph: onnx.GraphProto) -> None:
        node = nodes(graph, op)[index]
        node.input[:2] = [node.input[1], node.input[0]]

    return change


def with_output_of(op: str, index: int) -> Mutation:
    def change(graph: onnx.GraphProto) -> None:
        name = nodes(graph, op)[index].output[0]
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT16, [*"NCHW"]))

    return change


def added_from_inside(op: str, index: int, after: int) -> Mutation:
    """Another residual connection reaches into a block."""

    def change(graph: onnx.GraphProto) -> None:
        nodes(graph, "Add")[after].input[0] = nodes(graph, op)[index].output[0]

    return change


def with_type(name: str, *dims: int, element: int | None = None) -> Mutation:
    def change(graph: onnx.GraphProto) -> None:
        kind = {v.name: v.type.tensor_type for v in (*graph.input, *graph.output)}[name]
        for dim, size in zip(kind.shape.dim[-len(dims) :] if dims else [], dims, strict=True):
            dim.dim_value = size
        kind.elem_type = element or kind.elem_type

    return change
