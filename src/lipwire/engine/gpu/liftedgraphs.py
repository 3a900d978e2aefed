"""Graphs for a GPU as compiling makes them, ready to be written."""

from collections.abc import Mapping
from dataclasses import dataclass

from lipwire.domain import Form
from lipwire.engine.graphs import Precision, Weight


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
    """Why a precision that was wanted is not there."""
