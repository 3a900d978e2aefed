"""ONNX Runtime's optimiser, run once when an avatar is compiled instead of in every session.

The optimiser wants constant weights: it reorders them for the processor's vectors (NCHWc). So it is
given the whole network, and what it wrote is lifted afterwards. On one core the network of the
guide takes 332 ms a frame with weights fed to the graph as exported, 180 ms this way, and 177 ms
as an ordinary session.
"""

import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from lipwire.domain import AUDIO_WINDOW_SHAPE, AvatarInvalid, Float32Array, Form, StorageFailed
from lipwire.engine.compile.canonical import canonicalise, serialised
from lipwire.engine.compile.lifting import lift, why_not_shared
from lipwire.engine.compile.wrapping import faces_of
from lipwire.engine.forms import FACE, MOUTH, OUTPUT_SHAPE, PIXELS_SHAPE, SPEECH
from lipwire.engine.graphs import BuiltGraph, Weight
from lipwire.engine.runtime import (
    RUNTIME_ERRORS,
    Optimisation,
    first_line,
    open_session,
    session_options,
)

MAX_LAYER_VALUES: Final = 1 << 26
"""Numbers one layer may make for one frame (256 MB). The published network's widest makes 6.6 M."""

_SMALL_BYTES: Final = 4096

_THREADS: Final = 1
"""More would run a network not much sooner, for up to twice the processor time."""

_Array = np.ndarray[Any, Any]


def trial_inputs(form: Form, batch: int) -> dict[str, _Array]:
    """Return inputs by name ("face" and "speech") for a trial run of ``batch`` frames: noise, the
    same every time.

    The face is (batch, 320, 320, 3) uint8 for the form "pixels"; for "floats" it is the same noise
    in the network's own form (``faces_of``), (batch, 6, 320, 320) float32. The speech is (batch,
    32, 16, 16) float32. The first frames of a larger batch are those of a smaller one.
    """
    crops = np.random.default_rng(20).integers(0, 256, (batch, *PIXELS_SHAPE), np.uint8)
    speech: Float32Array = np.random.default_rng(21).standard_normal(
        (batch, *AUDIO_WINDOW_SHAPE), np.float32
    )
    return {FACE: crops if form == "pixels" else faces_of(crops), SPEECH: speech}


def check_sizes(wrapped: onnx.ModelProto, label: str) -> None:
    """Raise AvatarInvalid where the output of a layer of ``wrapped`` has more than 2 ** 26 numbers
    (``MAX_LAYER_VALUES``), for one frame or, where the network takes one batch size only, for such
    a batch, or where shapes do not fit each other.

    ``wrapped`` is a network between the layers that ``wrap`` adds, which convert its inputs and its
    output. ``label``, the file's name, begins the message.
    """
    # Shapes may depend on the values of small constants, and not on those of weights.
    small = {t.name for t in wrapped.graph.initializer if t.ByteSize() <= _SMALL_BYTES}
    graph, _ = lift(wrapped, small)
    try:
        inferred = onnx.shape_inference.infer_shapes(graph, data_prop=True)
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
    """Open an ``onnxruntime.InferenceSession`` of ``wrapped``, on the processor; return it and the
    graph that ONNX Runtime's optimiser made of it.

    The graph is in canonical form (``canonicalise``). At the ``level`` "full" it is for this
    processor; at "basic" constants are folded and nothing depends on the machine. ONNX Runtime
    writes the graph to a file, in a temporary folder that is made under ``scratch``, an existing
    folder. ``label``, the file's name, begins messages. Raises AvatarInvalid where ONNX Runtime
    refuses the network, StorageFailed where the file cannot be written.
    """
    data = serialised(wrapped)
    with tempfile.TemporaryDirectory(prefix="optimising-", dir=scratch) as folder:
        saved = Path(folder, "graph.onnx")
        options = session_options(threads=_THREADS, optimisation=level)
        options.optimized_model_filepath = str(saved)
        try:
            session = open_session(data, options)
        except RUNTIME_ERRORS as error:
            # The disk or the network? Without the file it is the network.
            try:
                open_session(data, session_options(threads=_THREADS, optimisation=level))
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
    """Run ``session``, an ``onnxruntime.InferenceSession`` of a network in ``form``, once on the
    noise of ``trial_inputs``, and return the mouths.

    They are (batch, 320, 320, 3) uint8 for the form "pixels", (batch, 3, 320, 320) float32 for
    "floats". Raises AvatarInvalid, with a message that begins with ``label``, where the run fails,
    or its output has another shape or is not finite.
    """
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
    optimised: onnx.ModelProto, wrapped: onnx.ModelProto, form: Form, mouth: _Array
) -> BuiltGraph:
    """Return what is stored of a network in ``form``, "pixels" or "floats": the graph ``optimised``
    without its weights, and the weights apart, if running these two gives ``mouth`` bit for bit.
    Otherwise the result has ``wrapped`` with its weights inside, which no other avatar can share,
    and the reason (``BuiltGraph.reason``).

    ``optimised`` is the graph that ``optimise`` returns for ``wrapped``. ``mouth`` is the output of
    the network for ``trial_inputs(form, N)``, N frames of noise: (N, 320, 320, 3) uint8 for
    "pixels", (N, 3, 320, 320) float32 for "floats".
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
        session = open_session(graph, session_options(threads=_THREADS, optimisation="none"))
        made: _Array = session.run([MOUTH], feeds)[0]
    except RUNTIME_ERRORS as error:
        return f"does not run with its weights fed: {first_line(error)}"
    if made.shape != mouth.shape or made.tobytes() != mouth.tobytes():
        return "differs in some bits when its weights are fed"
    return None
