"""Graphs as compiling makes them and as they are stored: without weights, which are fed to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

Precision = Literal["single", "half"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)
"""Those in which graphs are stored."""
RunPrecision = Precision | Literal["bfloat16"]
"""Those in which networks run: bfloat16 is what "single" is computed in on some processors."""
FloatType = Literal["float32", "float16", "bfloat16"]
FLOAT_TYPES: Final[Mapping[RunPrecision, FloatType]] = {
    "single": "float32",
    "half": "float16",
    "bfloat16": "bfloat16",
}
"""What people are told, and say in configurations, of each."""


@dataclass(frozen=True, slots=True)
class Weight:
    """The ``values`` of a constant that was taken out of a graph, and the ``name`` of the input of
    the graph that it is given to now."""

    name: str
    values: npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """A network in one form ("pixels" or "floats"), ready to be written.

    ``graph`` is the bytes of an ONNX model. Where avatars can share it, it has no weights, and
    takes the ``weights`` as inputs, after the face and the windows, in this order; ``reason`` is
    empty then. Else its weights are inside, ``weights`` is empty, and ``reason`` says why it cannot
    be shared.
    """

    graph: bytes
    """An ONNX model: optimised and without weights where shared, else whole and as wrapped."""
    weights: tuple[Weight, ...]
    """Inputs of the graph after the face and the speech; none where it is not shared."""
    reason: str
    """Why it is not shared; empty where it is."""
