"""Half precision: what is converted, what is not, and what rounding does to a face."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine.gpu.compile.halfprecision import CannotHalve, halved, rounded, why_not_half


def _network(nodes: list[Any], weights: dict[str, Any]) -> onnx.ModelProto:
    """x (4) to y (4), float32."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in "xy"]
    constants = [
        numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _run(model: onnx.ModelProto, x: Any) -> Any:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


X = np.array([1.0002, 3.3333, 40.001, -7.7777], np.float32).reshape(1, 1, 2, 2)


def test_every_layer_is_rounded() -> None:
    w = np.array(1.2345, np.float32)
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"]), helper.make_node("Mul", ["m", "w"], ["y"])]
    network = _network(nodes, {"w": w})
    half = np.float16(1.2345)
    stepwise = (X.astype(np.float16) * half) * half  # NumPy rounds each product
    assert stepwise.dtype == np.float16
    assert (_run(rounded(network), X) == stepwise.astype(np.float32)).all()
    assert (_run(network, X) != stepwise.astype(np.float32)).all()


def test_what_overflows_is_seen() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["m"]),
        helper.make_node("Div", ["m", "big"], ["y"]),
    ]
    network = _network(nodes, {"big": np.array(6e4, np.float32)})
    assert np.isfinite(_run(network, X)).all()
    assert np.isinf(_run(rounded(network), X)).any()


def test_a_weight_beyond_half_precision_cannot_be_halved() -> None:
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    network = _network(nodes, {"w": np.array(1e5, np.float32)})
    for convert in (halved, rounded):
        with pytest.raises(CannotHalve, match="1e\\+05"):
            convert(network)


def test_scales_stay_and_types_follow() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "w"], ["m"]),
        helper.make_node("Resize", ["m", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("AveragePool", ["r"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weights = {
        "w": np.array(0.5, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    half = halved(_network(nodes, weights))
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {"w": TensorProto.FLOAT16, "scales": TensorProto.FLOAT}
    onnx.checker.check_model(half, full_check=True)
    made = _run(half, X.astype(np.float16))
    assert made.dtype == np.float16
    assert made.reshape(-1).tolist() == [0.5, 1.5, 20, -3.5]


@pytest.mark.parametrize(
    ("spread", "says"),
    [(0, None), (2, "mean"), (3, "differs by 3")],
)
def test_limits(spread: int, says: str | None) -> None:
    wanted = np.full((1, 320, 320, 3), 128, np.uint8)
    reason = why_not_half(wanted, wanted + np.uint8(spread))
    assert (reason is None) if says is None else says in str(reason)


def test_one_pixel_may_differ_by_two_and_not_by_three() -> None:
    wanted = np.zeros((1, 320, 320, 3), np.uint8)
    other = wanted.copy()
    other[0, 5, 5, 1] = 2
    assert why_not_half(wanted, other) is None
    assert why_not_half(other, wanted) is None  # no wrapping of uint8
    other[0, 5, 5, 1] = 3
    assert why_not_half(wanted, other) is not None


def test_a_saved_network_is_not_changed(tmp_path: Path) -> None:
    network = _network([helper.make_node("Mul", ["x", "w"], ["y"])], {"w": np.float32(1.5)})
    before = network.SerializeToString(deterministic=True)
    halved(network)
    rounded(network)
    assert network.SerializeToString(deterministic=True) == before
