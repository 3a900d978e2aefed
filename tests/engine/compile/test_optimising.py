"""What a compiled model depends on."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lipwire.engine import runtime_key


def test_the_runtime_key_names_version_and_machine() -> None:
    assert re.fullmatch(r"\d+-ort[0-9.]+\w*-\w+-c\d+", runtime_key())
    assert onnxruntime.__version__ in runtime_key()


def test_the_runtime_key_knows_the_width_that_the_optimiser_uses(tmp_path: Path) -> None:
    """The optimiser pads 3 output channels to a whole block, as its saved weights show."""
    width = int(runtime_key().rpartition("-c")[2])
    weights = numpy_helper.from_array(np.ones((3, 64, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 8, 8])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    saved = onnx.load(tmp_path / "optimised.onnx").graph
    if "ReorderOutput" in {node.op_type for node in saved.node}:
        assert {tensor.dims[0] for tensor in saved.initializer} == {width}
    else:
        assert width == 1
