"""The graphs that a GPU runs: the same network in plain operators, its weights fed.

In *single* precision it is what the processor computes, up to the order of sums. In *half*
precision it takes half the memory and half the traffic, and exists only where the faces stay what
they are (``halfprecision``). What the processor's optimiser did to a network is of no use to a GPU,
whose own optimiser does its work when a session is opened; only constants are folded beforehand.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import onnx

from lipwire.domain import AUDIO_WINDOW_SHAPE, AvatarInvalid, Form
from lipwire.engine.compile.canonical import serialised
from lipwire.engine.compile.inspection import ModelInfo
from lipwire.engine.compile.lifting import lift, why_not_shared
from lipwire.engine.compile.wrapping import wrap
from lipwire.engine.forms import FACE, FORMS, MOUTH, PIXELS_SHAPE, SPEECH
from lipwire.engine.gpu.compile.halfprecision import CannotHalve, halved, rounded, why_not_half
from lipwire.engine.gpu.compile.hostconstants import host_constants
from lipwire.engine.gpu.liftedgraphs import GpuGraphs, LiftedGraph
from lipwire.engine.graphs import Precision
from lipwire.engine.runtime import RUNTIME_ERRORS, first_line, open_session, session_options

_Array = np.ndarray[Any, Any]
_LOUD: Final = 4.0
"""Times the usual size: windows of a trial at the edge of what a network hears."""


class _Unfit(Exception):
    """The network cannot be run on a GPU through a shared graph; one line says why."""


_FAILURES: Final[tuple[type[Exception], ...]] = (
    _Unfit,
    CannotHalve,
    AvatarInvalid,
    *RUNTIME_ERRORS,
)


def build_for_gpu(
    network: onnx.ModelProto,
    info: ModelInfo,
    fixed_batch: int | None,
    mouths: _Array,
    precisions: Collection[Precision],
) -> GpuGraphs:
    """Return the graphs for GPUs of ``network``, an ONNX model in the form "floats", with its
    constants folded.

    ``info`` describes it, ``fixed_batch`` is the only N that it takes (None: any), and
    ``precisions`` are those to make, "half", "single" or both. ``mouths``, uint8, are what the
    processor makes of the batches of ``hard_inputs(fixed_batch)``, (N, 320, 320, 3) each, joined in
    their order; the result is compared with them. Where the network is not fit for half precision,
    single is made in its place. Where it is fit for none, nothing is raised: ``GpuGraphs.reasons``
    says why a precision is missing. Takes about four inferences for half precision, one for single.
    """
    inner = replace(
        info,
        input_name=FACE,
        audio_name=SPEECH,
        output_name=MOUTH,
        element_types=("float32", "float32", "float32"),
    )
    half_inner = replace(inner, element_types=("float16", "float16", "float16"))

    def half() -> dict[Form, LiftedGraph]:
        graphs = _lifted(halved(network), half_inner, fixed_batch)
        _check(graphs, mouths, fixed_batch)
        _check_rounding(rounded(network), inner, mouths, fixed_batch)
        return graphs

    def single() -> dict[Form, LiftedGraph]:
        graphs = _lifted(network, inner, fixed_batch)
        _check(graphs, mouths, fixed_batch)
        return graphs

    graphs: dict[Precision, Mapping[Form, LiftedGraph]] = {}
    reasons: dict[Precision, str] = {}

    def add(precision: Precision, make: Callable[[], dict[Form, LiftedGraph]]) -> None:
        try:
            graphs[precision] = make()
        except _FAILURES as error:
            reasons[precision] = first_line(error)

    if "half" in precisions:
        add("half", half)
    if "single" in precisions or not graphs:
        add("single", single)
    return GpuGraphs(graphs, reasons)


def hard_inputs(fixed_batch: int | None) -> list[dict[str, _Array]]:
    """Return inputs with which precisions are compared: three frames, in batches of N, where the
    last frame is repeated to fill a batch. Each batch is a dict of arrays by the name of the input,
    "face" and "speech".

    The faces, (N, 320, 320, 3) uint8, are noise, black beside white, and a chessboard; the values
    of the speech, (N, 32, 16, 16) float32, are noise as large as speech usually is, noise four
    times as large, and zeros. ``fixed_batch`` is the only N that the network takes; None where any
    will do, and N is 1 then.
    """
    random = np.random.default_rng(21)
    noise = random.integers(0, 256, PIXELS_SHAPE, np.uint8)
    rows, columns = np.indices(PIXELS_SHAPE[:2])
    halves = np.where(columns < PIXELS_SHAPE[1] // 2, 0, 255)
    board = (rows // 8 + columns // 8) % 2 * 255
    plain = [np.repeat(face[..., None], 3, axis=2).astype(np.uint8) for face in (halves, board)]
    faces = np.stack([noise, *plain])
    speech = random.standard_normal((3, *AUDIO_WINDOW_SHAPE), np.float32)
    speech *= np.array([1.0, _LOUD, 0.0], np.float32)[:, None, None, None]
    size = fixed_batch or 1
    return [
        {FACE: _filled(faces[first:], size), SPEECH: _filled(speech[first:], size)}
        for first in range(0, len(faces), size)
    ]


def _filled(frames: _Array, size: int) -> _Array:
    """The first ``size`` of ``frames``, the last one repeated."""
    return frames[np.minimum(np.arange(size), len(frames) - 1)]


def _lifted(
    network: onnx.ModelProto, inner: ModelInfo, fixed_batch: int | None
) -> dict[Form, LiftedGraph]:
    graphs: dict[Form, LiftedGraph] = {}
    for form in FORMS:
        wrapped = wrap(network, inner, form, fixed_batch)
        kept = {name for _, name in host_constants(wrapped.graph)}
        lifted, weights = lift(wrapped, kept)
        reason = why_not_shared(lifted, kept)
        if reason is not None:
            raise _Unfit(reason)
        graphs[form] = LiftedGraph(serialised(lifted), tuple(weights))
    return graphs


def _check(graphs: Mapping[Form, LiftedGraph], wanted: _Array, fixed_batch: int | None) -> None:
    """That the graph with its weights fed makes the first of the mouths in ``wanted``."""
    pixels = graphs["pixels"]
    feeds = {weight.name: weight.values for weight in pixels.weights}
    options = session_options(threads=None, optimisation="basic")
    session = open_session(pixels.graph, options)
    made: _Array = session.run([MOUTH], {**hard_inputs(fixed_batch)[0], **feeds})[0]
    _refuse(wanted[: len(made)], made)


def _check_rounding(
    network: onnx.ModelProto, inner: ModelInfo, wanted: _Array, fixed_batch: int | None
) -> None:
    wrapped = wrap(network, inner, "pixels", fixed_batch)
    session = open_session(serialised(wrapped), session_options(threads=None, optimisation="full"))
    made = [session.run([MOUTH], batch)[0] for batch in hard_inputs(fixed_batch)]
    _refuse(wanted, np.concatenate(made))


def _refuse(wanted: _Array, made: _Array) -> None:
    reason = why_not_half(wanted, made)
    if reason is not None:
        raise _Unfit(reason)
