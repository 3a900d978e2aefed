"""Graphs for a GPU as compiling makes them, ready to be written."""

from collections.abc import Mapping
from dataclasses import dataclass

from lipwire.domain import Form
from lipwire.engine.graphs import Precision, Weight


@dataclass(frozen=True, slots=True)
class LiftedGraph:
    """A network without its weights, in one form ("pixels" or "floats"): ``graph`` is the bytes of
    an ONNX model, whose inputs are the face, the windows, and then the ``weights``, in this order.
    """

    graph: bytes
    weights: tuple[Weight, ...]
    """Inputs of the graph after the face and the speech."""


@dataclass(frozen=True, slots=True)
class GpuGraphs:
    """The result of compiling a network for GPUs: ``graphs`` by precision ("half" or "single"),
    then by form ("pixels" or "floats"). ``reasons`` has a line for each precision that was tried
    and is missing, which says why."""

    graphs: Mapping[Precision, Mapping[Form, LiftedGraph]]
    reasons: Mapping[Precision, str]
    """Why a precision that was wanted is not there."""
