"""What a compiled network holds for GPUs: ``gpu.json``, graphs, and a file of weights.

A GPU gets the weights of an avatar as one piece of memory, the *image*, in which each weight has
its place. The image is a file as it is, one for each precision that was compiled: half.bin,
single.bin.
"""

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AvatarInvalid, Form, NotFound
from lipwire.engine.forms import FORMS, MAX_FIXED_BATCH
from lipwire.engine.gpu.liftedgraphs import GpuGraphs, LiftedGraph
from lipwire.engine.graphs import PRECISIONS, Precision
from lipwire.engine.store.files import (
    ALIGNMENT_BYTES,
    ELEMENT_TYPES,
    MAX_MANIFEST_BYTES,
    StoredWeight,
    bytes_of,
    map_file,
    read_graph_file,
    read_limited,
    whole,
    write_graph,
)

GPU_MANIFEST_NAME: Final = "gpu.json"


@dataclass(frozen=True, slots=True)
class GpuGraph:
    """What gpu.json says of a network's graph in one form and precision: the name of its ONNX
    ``file``, the SHA-256 of that file in hexadecimal digits, and where each of its ``weights`` lies
    in the file of weights."""

    file: str
    sha256: str
    """SHA-256 of the graph's file; graphs of equal content share sessions."""
    weights: tuple[StoredWeight, ...]


@dataclass(frozen=True, slots=True)
class GpuModel:
    """What gpu.json says of a network in one ``precision``, "half" or "single": its ``graphs`` by
    form ("pixels" or "floats"), and how many bytes its weights take."""

    precision: Precision
    graphs: Mapping[Form, GpuGraph]
    image_bytes: int

    @property
    def image_file(self) -> str:
        """The name of the file that has the weights, half.bin or single.bin."""
        return _image_name(self.precision)


@dataclass(frozen=True, slots=True)
class GpuManifest:
    """The content of gpu.json, which describes a network that was compiled for GPUs.

    ``runtime`` says for which versions it was compiled (``gpu_runtime_key``), ``source_sha256`` is
    the SHA-256 of the ONNX file that it was made of. ``fixed_batch`` is the only batch size that it
    takes; None where any will do. ``models`` describes the network in each precision that was
    compiled, by precision ("half" or "single"). ``reasons`` says, also by precision, why one is
    missing; the text is empty for a precision that is there or was not asked for.
    """

    runtime: str
    source_sha256: str
    fixed_batch: int | None
    models: Mapping[Precision, GpuModel]
    reasons: Mapping[Precision, str]
    """Why a precision that was wanted is not there."""


def gpu_files() -> tuple[str, ...]:
    """Return the names of all files that ``write_gpu`` may write into its folder."""
    graphs = (_graph_name(form, precision) for precision in PRECISIONS for form in FORMS)
    return (GPU_MANIFEST_NAME, *map(_image_name, PRECISIONS), *graphs)


def write_gpu(
    folder: Path, gpu: GpuGraphs, *, runtime: str, source_sha256: str, fixed_batch: int | None
) -> None:
    """Write what was compiled for GPUs into ``folder``: graphs and weights of ``gpu``, and last the
    manifest.

    ``runtime`` says what the files depend on besides their source (``gpu_runtime_key``),
    ``source_sha256`` is the SHA-256 of the network's ONNX file, in hexadecimal digits, and
    ``fixed_batch`` the only batch size that it takes; None where any will do. Raises OSError where
    a file cannot be written; what was written until then stays, for the caller to remove.
    """
    manifest = {
        "runtime": runtime,
        "source_sha256": source_sha256,
        "fixed_batch": fixed_batch,
        "models": {
            precision: _write_model(folder, precision, graphs)
            for precision, graphs in gpu.graphs.items()
        },
        "reasons": dict(gpu.reasons),
    }
    (folder / GPU_MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")


def _write_model(
    folder: Path, precision: Precision, graphs: Mapping[Form, LiftedGraph]
) -> dict[str, Any]:
    layout = _Layout(graphs)
    with (folder / _image_name(precision)).open("wb") as file:
        for offset, values in layout.arrays.items():
            file.seek(offset)
            file.write(bytes_of(values))
        file.truncate(layout.size_bytes)
    stored: dict[str, Any] = {}
    for form, graph in graphs.items():
        file_name = _graph_name(form, precision)
        rows = [
            [weight.name, weight.values.dtype.name, list(weight.values.shape), offset]
            for weight, offset in zip(graph.weights, layout.offsets[form], strict=True)
        ]
        sha256 = write_graph(folder / file_name, graph.graph)
        stored[form] = {"file": file_name, "sha256": sha256, "weights": rows}
    return {"graphs": stored, "image_bytes": layout.size_bytes}


class _Layout:
    """Where the weights of all forms lie in an image.

    It follows from the graphs alone: avatars of one architecture have one layout, and so share
    sessions, even where two weights of one of them happen to be equal.
    """

    def __init__(self, graphs: Mapping[Form, LiftedGraph]) -> None:
        self.arrays: dict[int, npt.NDArray[np.generic]] = {}
        """By offset."""
        self.offsets: dict[Form, list[int]] = {}
        """Of the weights of each form, in their order."""
        self.size_bytes = 0
        of_other_forms: dict[tuple[Any, ...], list[int]] = {}
        for form, graph in graphs.items():
            unused = {key: list(offsets) for key, offsets in of_other_forms.items()}
            self.offsets[form] = []
            for weight in graph.weights:
                data = bytes_of(weight.values)
                key = (weight.values.dtype, weight.values.shape, hashlib.sha256(data).digest())
                if unused.get(key):
                    offset = unused[key].pop(0)
                else:
                    offset = self.size_bytes
                    self.arrays[offset] = weight.values
                    self.size_bytes += len(data) + -len(data) % ALIGNMENT_BYTES
                    of_other_forms.setdefault(key, []).append(offset)
                self.offsets[form].append(offset)


def _graph_name(form: Form, precision: Precision) -> str:
    return f"{form}-{precision}.onnx"


def _image_name(precision: Precision) -> str:
    return f"{precision}.bin"


def read_gpu_manifest(folder: Path) -> GpuManifest:
    """Read gpu.json in ``folder``, check it, and return its content. Raises NotFound where it is
    missing, AvatarInvalid where it is damaged."""
    try:
        data = read_limited(folder / GPU_MANIFEST_NAME, MAX_MANIFEST_BYTES)
        return _manifest(json.loads(data))
    except FileNotFoundError:
        raise NotFound(f"nothing compiled for GPUs: {GPU_MANIFEST_NAME} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {str(error)[:80]!r}"
        raise AvatarInvalid(f"compiled model: {GPU_MANIFEST_NAME} is damaged: {reason}") from None


def read_gpu_graph(folder: Path, graph: GpuGraph) -> bytes:
    """Return the ONNX file of ``graph`` in ``folder``, as bytes. Raises AvatarInvalid where it is
    missing, or its SHA-256 is not that of the manifest."""
    return read_graph_file(folder, graph.file, graph.sha256, GPU_MANIFEST_NAME)


class ImageFile:
    """The file of a network's weights, as a GPU takes them, mapped into memory. Threads may share
    it."""

    def __init__(self, folder: Path, model: GpuModel) -> None:
        """Map the file of the weights of ``model`` in ``folder``. Raises AvatarInvalid where it is
        missing or has another size than ``model`` says, MemoryError where this process has no room
        to map it."""
        self.size_bytes: Final = model.image_bytes
        self.image: Final = map_file(folder, model.image_file, model.image_bytes, GPU_MANIFEST_NAME)
        """(size_bytes,) uint8, read-only."""

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Copy the weights into ``image``, (size_bytes,) uint8."""
        np.copyto(image, self.image)


def _manifest(fields: dict[str, Any]) -> GpuManifest:
    fixed = fields["fixed_batch"]
    models: dict[Precision, GpuModel] = {}
    for precision in PRECISIONS:
        stored = fields["models"].get(precision)
        if stored is None:
            continue
        image_bytes = whole(stored["image_bytes"], 1 << 40)
        graphs: dict[Form, GpuGraph] = {}
        for form in FORMS:
            graph = stored["graphs"][form]
            if graph["file"] != _graph_name(form, precision):
                raise ValueError(f"file {graph['file']}")
            rows = tuple(_weight(row, image_bytes) for row in graph["weights"])
            graphs[form] = GpuGraph(graph["file"], str(graph["sha256"]), rows)
        models[precision] = GpuModel(precision, graphs, image_bytes)
    return GpuManifest(
        runtime=str(fields["runtime"]),
        source_sha256=str(fields["source_sha256"]),
        fixed_batch=None if fixed is None else 1 + whole(fixed - 1, MAX_FIXED_BATCH - 1),
        models=models,
        reasons={precision: str(fields["reasons"].get(precision, "")) for precision in PRECISIONS},
    )


def _weight(row: list[Any], image_bytes: int) -> StoredWeight:
    name, kind, dims, offset = row
    shape = tuple(whole(dim, 1 << 40) for dim in dims)
    if kind not in ELEMENT_TYPES:
        raise ValueError(f"weight of {kind}")
    end_bytes = whole(offset, image_bytes) + math.prod(shape) * np.dtype(kind).itemsize
    if offset % ALIGNMENT_BYTES or end_bytes > image_bytes:
        raise ValueError(f"weight at {offset} of {image_bytes}")
    return StoredWeight(sys.intern(str(name)), kind, shape, offset)
