"""Graphs as compiling makes them and as they are stored: without weights, which are fed to them."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

Precision = Literal["single", "half"]
PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class Weight:
    """An array that was a constant of the graph and is an input of it now."""

    name: str
    values: npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class BuiltGraph:
    """One form of a network, ready to be written."""

    graph: bytes
    """An ONNX model: optimised and without weights where shared, else whole and as wrapped."""
    weights: tuple[Weight, ...]
    """Inputs of the graph after the face and the speech; none where it is not shared."""
    reason: str
    """Why it is not shared; empty where it is."""
