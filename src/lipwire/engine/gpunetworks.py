"""Networks that were loaded for a device."""

import threading
import weakref
from collections.abc import Hashable
from pathlib import Path
from typing import Final

from lipwire.engine.batching import BATCH_SIZES, split
from lipwire.engine.crops import AvatarCrops
from lipwire.engine.faces import Frames
from lipwire.engine.gpugraphs import Precision
from lipwire.engine.gpustorage import GpuModel, read_gpu_graph
from lipwire.engine.kernelruns import Program
from lipwire.engine.lanes import Architecture, Input
from lipwire.engine.residents import Resident
from lipwire.engine.wrapping import Form

MOST_FRAMES: Final = BATCH_SIZES[-1]


class GpuNetwork:
    """Kept by its ``Model``."""

    __slots__ = (
        "__weakref__",
        "architecture",
        "crops",
        "finalizers",
        "frames",
        "precision",
        "program",
        "resident",
        "sizes",
    )

    def __init__(
        self,
        architecture: Architecture,
        resident: Resident,
        precision: Precision,
        sizes: tuple[int, ...],
        frames: Frames | None,
        crops: AvatarCrops | None,
        program: Program | None,
    ) -> None:
        self.architecture: Architecture | None = architecture
        """None once it is unloaded."""
        self.program = program
        """Where pixels are run in kernels of our own; None where they are in ONNX Runtime."""
        self.resident = resident
        self.frames = frames
        self.crops = crops
        """What is kept of ``frames``; None where nothing is."""
        self.finalizers: list[weakref.finalize[..., GpuNetwork]] = []
        self.precision: Final = precision
        self.sizes: Final = sizes
        """Batch sizes that ONNX Runtime runs it in."""

    def batches(self, frames: int, form: Form) -> tuple[int, ...]:
        """What so many frames are run in. Kernels of our own take any number, up to the largest."""
        if self.program is None or form != "pixels":
            return split(frames, self.sizes)
        whole, rest = divmod(frames, MOST_FRAMES)
        return (*[MOST_FRAMES] * whole, *([rest] if rest else []))


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
