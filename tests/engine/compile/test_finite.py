"""Weights that are no numbers are seen wherever they are kept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.bench.randomnetworks import write_tiny_unet
from lipwire.domain import AvatarInvalid
from lipwire.engine import compile_model, inspect_model

Keep = Callable[[onnx.ModelProto, Path], None]


def _inside(proto: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(proto.SerializeToString())


def _outside(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path, save_as_external_data=True, location="all.data", size_threshold=0)


def _in_fields(proto: onnx.ModelProto, path: Path) -> None:
    """As numbers of protobuf, not as bytes."""
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.reshape(-1))
        )
    path.write_bytes(proto.SerializeToString())


def _in_halves(proto: onnx.ModelProto, path: Path) -> None:
    for tensor in proto.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    path.write_bytes(proto.SerializeToString())


def _in_nodes(proto: onnx.ModelProto, path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    del proto.graph.initializer[:]
    nodes += list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    path.write_bytes(proto.SerializeToString())


@pytest.mark.slow
@pytest.mark.parametrize("keep", [_inside, _outside, _in_fields, _in_halves, _in_nodes])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, keep: Keep, value: float) -> None:
    path = tmp_path / "model.onnx"
    write_tiny_unet(path, seed=1)
    proto = onnx.load(path)
    names = []
    for place in (0, 2):
        tensor = proto.graph.initializer[place]
        values = numpy_helper.to_array(tensor).copy()
        values.reshape(-1)[3:5] = value
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        names.append(tensor.name)
    keep(proto, path)
    (tmp_path / "compiled").mkdir()
    for look in (lambda: inspect_model(path), lambda: compile_model(path, tmp_path / "compiled")):
        with pytest.raises(AvatarInvalid) as caught:
            look()
        seen = f"weights {names[0]!r} and 1 more hold NaN or infinity (4 of 140533 numbers)"
        assert seen in str(caught.value)


def test_bounds_may_be_infinite(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_tiny_unet(path, seed=1, ending="clip")
    proto = onnx.load(path)
    bound = next(tensor for tensor in proto.graph.initializer if not tensor.dims)
    bound.CopyFrom(numpy_helper.from_array(np.array(-np.inf, np.float32), bound.name))
    path.write_bytes(proto.SerializeToString())
    assert inspect_model(path).parameters > 0
