"""ONNX Runtime's optimiser, run once when an avatar is compiled instead of in every session.

The optimiser wants constant weights: it reorders them for the processor's vectors (NCHWc). So it is
given the whole network, and what it wrote is lifted afterwards. On one core the network of the
guide takes 332 ms a frame with weights fed to the graph as exported, 180 ms this way, and 177 ms
as an ordinary session.
"""

import functools
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from lipwire.domain import AUDIO_WINDOW_SHAPE, AvatarInvalid, Float32Array, StorageFailed
from lipwire.engine.canonical import canonicalise, serialised
from lipwire.engine.devices import (
    RUNTIME_ERRORS,
    Optimisation,
    open_session,
    session_options,
)
from lipwire.engine.inspection import OUTPUT_SHAPE, VISUAL_SHAPE
from lipwire.engine.lifting import Weight, lift, why_not_shared
from lipwire.engine.source import first_line
from lipwire.engine.wrapping import FACE, MOUTH, PIXELS_SHAPE, SPEECH, Form

FORMAT_VERSION: Final = 2
"""Of everything that compiling writes; raised whenever any of it changes."""

MAX_LAYER_VALUES: Final = 1 << 26
"""Numbers one layer may make for one frame (256 MB). The published network's widest makes 6.6 M."""

_Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """One form of a network, ready to be written."""

    graph: bytes
    """An ONNX model: optimised and without weights where shared, else whole and as wrapped."""
    weights: tuple[Weight, ...]
    """Inputs of the graph after the face and the speech; none where it is not shared."""
    reason: str
    """Why it is not shared; empty where it is."""


@functools.cache
def runtime_key() -> str:
    """What a compiled model depends on besides its source, as one line of plain characters.

    The version of this format, of ONNX Runtime, the kind of processor, and the width of the blocks
    that ONNX Runtime puts channels into here (from the processor's instruction set).
    """
    return (
        f"{FORMAT_VERSION}-ort{onnxruntime.__version__}-{platform.machine().lower() or 'any'}"
        f"-c{block_width()}"
    )


@functools.cache
def block_width() -> int:
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


def trial_inputs(form: Form, batch: int) -> dict[str, _Array]:
    """Inputs that look like work, the same every time."""
    random = np.random.default_rng(20)
    face: _Array
    if form == "pixels":
        face = random.integers(0, 256, (batch, *PIXELS_SHAPE), np.uint8)
    else:
        face = random.random((batch, *VISUAL_SHAPE), np.float32)
    speech: Float32Array = random.standard_normal((batch, *AUDIO_WINDOW_SHAPE), np.float32)
    return {FACE: face, SPEECH: speech}


def check_sizes(wrapped: onnx.ModelProto, label: str) -> None:
    """Refuse a network in which a layer makes more than ``MAX_LAYER_VALUES`` numbers a frame."""
    try:
        inferred = onnx.shape_inference.infer_shapes(wrapped, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise AvatarInvalid(f"{label}: shapes do not fit: {first_line(error)}") from None
    for value in inferred.graph.value_info:
        count = 1
        for dim in value.type.tensor_type.shape.dim:
            count *= dim.dim_value if dim.HasField("dim_value") else 1
        if count > MAX_LAYER_VALUES:
            raise AvatarInvalid(
                f"{label}: a layer makes {count} numbers a frame, allowed are {MAX_LAYER_VALUES}"
            )


def optimise(
    wrapped: onnx.ModelProto, label: str, scratch: Path, level: Optimisation = "full"
) -> tuple[Any, onnx.ModelProto]:
    """A session of ``wrapped``, and the graph that its optimiser made, canonical.

    The session is the ordinary one at the level ``full``, whose graph is this processor's. At
    ``basic`` constants are folded and nothing is tied to a machine. The graph goes through a file
    in a folder of its own under ``scratch``: ONNX Runtime offers no other way. Raises AvatarInvalid
    where it refuses the network, StorageFailed where the file cannot be written.
    """
    data = serialised(wrapped)
    with tempfile.TemporaryDirectory(prefix="optimising-", dir=scratch) as folder:
        saved = Path(folder, "graph.onnx")
        options = session_options(threads=None, optimisation=level)
        options.optimized_model_filepath = str(saved)
        try:
            session = open_session(data, options)
        except RUNTIME_ERRORS as error:
            # The disk or the network? Without the file it is the network.
            try:
                open_session(data, session_options(threads=None, optimisation=level))
            except RUNTIME_ERRORS as again:
                raise AvatarInvalid(f"{label}: cannot be loaded: {first_line(again)}") from None
            raise StorageFailed(f"{label}: cannot be compiled: {first_line(error)}") from None
        try:
            graph = onnx.load(saved)
        except Exception as error:  # a half-written file fails in any way at all
            raise StorageFailed(f"{label}: cannot be compiled: {first_line(error)}") from None
    names = {name: name for name in (FACE, SPEECH)}
    return session, canonicalise(graph, inputs=names, outputs={MOUTH: MOUTH})


def try_out(session: Any, form: Form, batch: int, label: str) -> _Array:
    """Run the ordinary session once. Raises AvatarInvalid where it fails or makes nonsense."""
    try:
        mouth: _Array = session.run([MOUTH], trial_inputs(form, batch))[0]
    except RUNTIME_ERRORS as error:
        raise AvatarInvalid(f"{label}: fails on a batch of {batch}: {first_line(error)}") from None
    wanted = (batch, *(PIXELS_SHAPE if form == "pixels" else OUTPUT_SHAPE))
    if mouth.shape != wanted:
        raise AvatarInvalid(f"{label}: makes an output of {mouth.shape}, wanted is {wanted}")
    if not np.isfinite(mouth).all():
        raise AvatarInvalid(f"{label}: makes numbers that are not finite (a trial on noise)")
    return mouth


def build(
    session: Any, optimised: onnx.ModelProto, wrapped: onnx.ModelProto, form: Form, mouth: _Array
) -> BuiltGraph:
    """The shared graph of ``optimised`` where it makes exactly ``mouth``, else ``wrapped`` whole.

    ``mouth`` is what the ordinary session made of ``trial_inputs``.
    """
    lifted, weights = lift(optimised)
    reason = why_not_shared(lifted)
    if reason is None:
        graph = serialised(lifted)
        reason = _why_not_equal(graph, weights, form, mouth)
        if reason is None:
            return BuiltGraph(graph, tuple(weights), "")
    return BuiltGraph(serialised(wrapped), (), reason)


def _why_not_equal(graph: bytes, weights: list[Weight], form: Form, mouth: _Array) -> str | None:
    feeds = trial_inputs(form, mouth.shape[0]) | {w.name: w.values for w in weights}
    try:
        session = open_session(graph, session_options(threads=None, optimisation="none"))
        made: _Array = session.run([MOUTH], feeds)[0]
    except RUNTIME_ERRORS as error:
        return f"does not run with its weights fed: {first_line(error)}"
    if made.shape != mouth.shape or made.tobytes() != mouth.tobytes():
        return "differs in some bits when its weights are fed"
    return None
