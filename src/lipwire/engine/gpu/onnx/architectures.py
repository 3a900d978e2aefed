"""What avatars whose networks are alike have in common: graphs, sessions, kernels."""

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipwire.domain import Form
from lipwire.engine.gpu.store.gpufiles import GpuModel, read_gpu_graph
from lipwire.engine.graphs import Precision
from lipwire.engine.keyedlocks import KeyedLocks
from lipwire.engine.store.files import StoredWeight


@dataclass(frozen=True, eq=False)
class Architecture:
    """What networks with equal graphs have in common, whatever their weights: sessions and kernels
    are made once for all of them, and freed when none of them is loaded.

    By form ("pixels" or "floats"), ``graphs`` are the bytes of ONNX models, and ``weights`` says
    where each weight lies in the block of ``image_bytes`` bytes that holds all weights of an
    avatar. ``precision`` is "half" or "single".
    """

    graphs: Mapping[Form, bytes]
    weights: Mapping[Form, Sequence[StoredWeight]]
    image_bytes: int
    precision: Precision


OpenSession = Callable[[Architecture, Form, int, int], Any]
"""``(architecture, form, batch, stream)``: a session at a batch of so many frames."""


class Architectures:
    """Finds the architecture of a network, what it has in common with all networks whose graphs are
    equal. An architecture is kept as long as a network refers to it. Thread-safe."""

    def __init__(self) -> None:
        self._found: weakref.WeakValueDictionary[Hashable, Architecture] = (
            weakref.WeakValueDictionary()
        )
        self._making = KeyedLocks()

    def __len__(self) -> int:
        return len(self._found)

    def of(self, folder: Path, model: GpuModel) -> Architecture:
        """Return the architecture of the network that ``model`` describes and whose files are in
        ``folder``: the same object for all networks whose graphs have the same content and whose
        weights lie at the same offsets. Raises AvatarInvalid where a graph's file is missing or
        damaged."""
        weights = {form: graph.weights for form, graph in model.graphs.items()}
        key = (tuple(graph.sha256 for graph in model.graphs.values()), tuple(weights.values()))
        with self._making.held(key):
            found = self._found.get(key)
            if found is None:
                graphs = {
                    form: read_gpu_graph(folder, graph) for form, graph in model.graphs.items()
                }
                found = Architecture(graphs, weights, model.image_bytes, model.precision)
                self._found[key] = found
        return found
