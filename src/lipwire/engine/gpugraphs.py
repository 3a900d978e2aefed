"""The graphs that a GPU runs: the same network in plain operators, its weights fed, twice.

In *single* precision it is what the processor computes, up to the order of sums. In *half*
precision it takes half the memory and half the traffic, and exists only where the faces stay what
they are (``halving``). What the processor's optimiser did to a network is of no use to a GPU, whose
own optimiser does its work when a session is opened; only constants are folded beforehand.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import onnx

from lipwire.domain import AUDIO_WINDOW_SHAPE, AvatarInvalid
from lipwire.engine.canonical import serialised
from lipwire.engine.devices import RUNTIME_ERRORS, open_session, session_options
from lipwire.engine.halving import CannotHalve, halved, rounded, why_not_half
from lipwire.engine.inspection import ModelInfo
from lipwire.engine.lifting import Weight, lift, why_not_shared
from lipwire.engine.optimising import optimise
from lipwire.engine.source import first_line
from lipwire.engine.wrapping import FACE, FORMS, MOUTH, PIXELS_SHAPE, SPEECH, Form, wrap

Precision = Literal["single", "half"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

_Array = np.ndarray[Any, Any]
_LOUD: Final = 4.0
"""Times the usual size: windows of a trial at the edge of what a network hears."""


@dataclass(frozen=True, slots=True)
class LiftedGraph:
    """One form of a network without its weights."""

    graph: bytes
    weights: tuple[Weight, ...]
    """Inputs of the graph after the face and the speech."""


@dataclass(frozen=True, slots=True)
class GpuGraphs:
    """What was made of a network for GPUs: by precision, then by form."""

    graphs: Mapping[Precision, Mapping[Form, LiftedGraph]]
    reasons: Mapping[Precision, str]
    """Why a precision is not there."""


class _Unfit(Exception):
    """The network cannot be run on a GPU through a shared graph; one line says why."""


_FAILURES: Final[tuple[type[Exception], ...]] = (
    _Unfit,
    CannotHalve,
    AvatarInvalid,
    *RUNTIME_ERRORS,
)


def build_for_gpu(
    wrapped_floats: onnx.ModelProto,
    ordinary: Any,
    info: ModelInfo,
    fixed_batch: int | None,
    label: str,
    scratch: Path,
) -> GpuGraphs:
    """Graphs for GPUs of the network in ``wrapped_floats`` (its form *floats*).

    ``ordinary`` is the ordinary session of its form *pixels*: what is made here is compared with
    it. Takes about ten inferences. Raises StorageFailed where ``scratch`` cannot be written to.
    """
    inner = replace(
        info,
        input_name=FACE,
        audio_name=SPEECH,
        output_name=MOUTH,
        element_types=("float32", "float32", "float32"),
    )
    half_inner = replace(inner, element_types=("float16", "float16", "float16"))
    try:
        _, network = optimise(wrapped_floats, label, scratch, "basic")
        wanted = _mouths(ordinary, fixed_batch)
        single = _lifted(network, inner, fixed_batch)
        _check(single, wanted, fixed_batch)
    except _FAILURES as error:
        reason = first_line(error)
        return GpuGraphs({}, {"single": reason, "half": reason})
    try:
        half = _lifted(halved(network), half_inner, fixed_batch)
        _check(half, wanted, fixed_batch)
        _check_rounding(rounded(network), inner, wanted, fixed_batch)
    except _FAILURES as error:
        return GpuGraphs({"single": single}, {"half": first_line(error)})
    return GpuGraphs({"single": single, "half": half}, {})


def hard_inputs(fixed_batch: int | None) -> list[dict[str, _Array]]:
    """Batches of inputs, common and extreme: noise; black beside white, loud; a board, silent."""
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


def _mouths(
    session: Any, fixed_batch: int | None, feeds: Mapping[str, Any] | None = None
) -> _Array:
    batches = hard_inputs(fixed_batch)
    return np.concatenate(
        [session.run([MOUTH], {**batch, **(feeds or {})})[0] for batch in batches]
    )


def _lifted(
    network: onnx.ModelProto, inner: ModelInfo, fixed_batch: int | None
) -> dict[Form, LiftedGraph]:
    graphs: dict[Form, LiftedGraph] = {}
    for form in FORMS:
        lifted, weights = lift(wrap(network, inner, form, fixed_batch), for_gpu=True)
        reason = why_not_shared(lifted, for_gpu=True)
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
    options = session_options(threads=None, optimisation="full")
    _refuse(wanted, _mouths(open_session(serialised(wrapped), options), fixed_batch))


def _refuse(wanted: _Array, made: _Array) -> None:
    reason = why_not_half(wanted, made)
    if reason is not None:
        raise _Unfit(reason)
