"""What a compiled network depends on besides its source: format, ONNX Runtime, processor."""

import functools
import platform
from typing import Final

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from lipwire.engine.runtime import RUNTIME_ERRORS, open_session, session_options

FORMAT_VERSION: Final = 4
"""Of everything that compiling writes; raised whenever any of it changes."""


@functools.cache
def runtime_key() -> str:
    """Return everything that a compiled network depends on besides its source, as a short text: a
    network that was compiled under another key has to be compiled again.

    The text has the version of Lipwire's format, that of ONNX Runtime, the kind of processor, and
    the width of the blocks that ONNX Runtime puts channels into, which depends on the processor's
    instruction set.
    """
    return (
        f"{FORMAT_VERSION}-ort{onnxruntime.__version__}-{platform.machine().lower() or 'any'}"
        f"-c{_block_width()}"
    )


def gpu_runtime_key() -> str:
    """Return everything that a network compiled for GPUs depends on besides its source, as a short
    text: the versions of the format and of ONNX Runtime. It is the same on every kind of
    processor."""
    return f"{FORMAT_VERSION}-ort{onnxruntime.__version__}"


@functools.cache
def _block_width() -> int:
    """Channels in an NCHWc block, asked of ONNX Runtime itself; 1 where there is none."""
    domain = "com.microsoft.nchwc"
    graph = helper.make_graph(
        [helper.make_node("ReorderInput", ["x"], ["y"], domain=domain)],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 1, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    try:
        session = open_session(
            model.SerializeToString(), session_options(threads=1, optimisation="none")
        )
        return int(session.run(None, {"x": np.zeros((1, 4, 1, 1), np.float32)})[0].shape[1])
    except RUNTIME_ERRORS:
        return 1
