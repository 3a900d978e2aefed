"""What avatars have in common whose networks are alike."""

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipwire.engine.gpugraphs import Precision
from lipwire.engine.gpustorage import GpuModel, read_gpu_graph
from lipwire.engine.wrapping import Form


@dataclass(frozen=True, slots=True)
class Input:
    """One weight as a graph takes it."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    place_bytes: int
    """Its offset in the image, and in the slot."""


@dataclass(frozen=True, eq=False)
class Architecture:
    """What avatars of equal graphs have in common. Kept alive by them, and by nothing else."""

    graphs: Mapping[Form, bytes]
    weights: Mapping[Form, Sequence[Input]]
    image_bytes: int
    precision: Precision


OpenSession = Callable[[Architecture, Form, int, int], Any]
"""``(architecture, form, batch, stream)``: a session at a batch of so many frames."""


class Architectures:
    """Kinds of networks in use, each kept alive by its networks. Thread-safe."""

    def __init__(self) -> None:
        self._found: weakref.WeakValueDictionary[Hashable, Architecture] = (
            weakref.WeakValueDictionary()
        )
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._found)

    def of(self, folder: Path, model: GpuModel) -> Architecture:
        """The architecture of ``model`` in ``folder``, found by the content of its graphs and
        their weights' places. Raises AvatarInvalid."""
        inputs = {
            form: tuple(
                Input(weight.name, weight.element_type, weight.shape, weight.place_bytes)
                for weight in graph.weights
            )
            for form, graph in model.graphs.items()
        }
        key = (tuple(graph.sha256 for graph in model.graphs.values()), tuple(inputs.values()))
        with self._lock:
            found = self._found.get(key)
            if found is None:
                graphs = {
                    form: read_gpu_graph(folder, graph) for form, graph in model.graphs.items()
                }
                found = Architecture(graphs, inputs, model.image_bytes, model.precision)
                self._found[key] = found
        return found
