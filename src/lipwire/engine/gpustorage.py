"""What a compiled model holds for GPUs: ``gpu.json``, graphs, and ``half.bin``.

A GPU gets the weights of an avatar as one piece of memory, the *image*, in which each weight has
its place. The image in half precision is the file half.bin as it is. The image in single precision
is put together from weights.bin, which holds the same numbers in the processor's order
(``packing``).
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

from lipwire.domain import AvatarInvalid
from lipwire.engine.files import (
    ALIGNMENT_BYTES,
    ELEMENT_TYPES,
    MAX_MANIFEST_BYTES,
    WeightsFile,
    bytes_of,
    map_file,
    read_graph_file,
    read_limited,
    whole,
    write_graph,
)
from lipwire.engine.gpugraphs import PRECISIONS, GpuGraphs, LiftedGraph, Precision
from lipwire.engine.optimising import block_width
from lipwire.engine.packing import PACKINGS, Packing, pack, packed_size, unpack_into
from lipwire.engine.wrapping import FORMS, Form

GPU_MANIFEST_NAME: Final = "gpu.json"
HALF_NAME: Final = "half.bin"
_WEIGHTS_NAME: Final = "weights.bin"


@dataclass(frozen=True, slots=True)
class GpuWeight:
    """One input of a graph after the face and the speech."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    place_bytes: int
    """Its offset in the image."""
    source_bytes: int
    """Its offset in the file that the image is made from, in the order ``packing``."""
    packing: Packing


@dataclass(frozen=True, slots=True)
class GpuGraph:
    """One form of the network in one precision."""

    file: str
    sha256: str
    """Of the graph's file: graphs of equal content share sessions."""
    weights: tuple[GpuWeight, ...]


@dataclass(frozen=True, slots=True)
class GpuModel:
    """A network in one precision."""

    precision: Precision
    graphs: Mapping[Form, GpuGraph]
    image_bytes: int
    width: int
    """Of the blocks that packed weights lie in."""
    source_file: str
    source_size_bytes: int


@dataclass(frozen=True, slots=True)
class GpuManifest:
    """What gpu.json says."""

    models: Mapping[Precision, GpuModel]
    reasons: Mapping[Precision, str]
    """Why a precision is not there."""


def gpu_files() -> tuple[str, ...]:
    """All names that ``write_gpu`` may write to."""
    graphs = (_graph_name(form, precision) for precision in PRECISIONS for form in FORMS)
    return (GPU_MANIFEST_NAME, HALF_NAME, *graphs)


def write_gpu(folder: Path, gpu: GpuGraphs, weights: WeightsFile) -> None:
    """Write what there is for GPUs; numbers that ``weights`` has are not written again.

    What it lacks is added to it. Raises OSError.
    """
    models: dict[str, Any] = {}
    if "single" in gpu.graphs:
        models["single"] = _write_single(folder, gpu.graphs["single"], weights)
    if "half" in gpu.graphs:
        models["half"] = _write_half(folder, gpu.graphs["half"])
    manifest = {"width": block_width(), "models": models, "reasons": dict(gpu.reasons)}
    (folder / GPU_MANIFEST_NAME).write_text(json.dumps(manifest), "utf-8")


def _write_single(
    folder: Path, graphs: Mapping[Form, LiftedGraph], weights: WeightsFile
) -> dict[str, Any]:
    layout = _Layout(graphs)
    found = {place: _find(weights, values) for place, values in layout.arrays.items()}
    return _stored(folder, "single", graphs, layout, found)


def _find(weights: WeightsFile, values: npt.NDArray[np.generic]) -> tuple[int, Packing]:
    """Where the file has ``values``, in whichever order; it has them now."""
    for packing in PACKINGS:
        packed = pack(values, packing, block_width())
        found = None if packed is None else weights.find(packed)
        if found is not None:
            return found, packing
    return weights.place(values), "plain"


def _write_half(folder: Path, graphs: Mapping[Form, LiftedGraph]) -> dict[str, Any]:
    layout = _Layout(graphs)
    with (folder / HALF_NAME).open("wb") as file:
        for place, values in layout.arrays.items():
            file.seek(place)
            file.write(bytes_of(values))
        file.truncate(layout.size_bytes)
    found: dict[int, tuple[int, Packing]] = {place: (place, "plain") for place in layout.arrays}
    return _stored(folder, "half", graphs, layout, found)


class _Layout:
    """Where the weights of all forms lie in an image.

    It follows from the graphs alone: avatars of one architecture have one layout, and so share
    sessions, even where two weights of one of them happen to be equal.
    """

    def __init__(self, graphs: Mapping[Form, LiftedGraph]) -> None:
        self.arrays: dict[int, npt.NDArray[np.generic]] = {}
        """By offset."""
        self.places: dict[Form, list[int]] = {}
        """Offsets of the weights of each form, in their order."""
        self.size_bytes = 0
        of_other_forms: dict[tuple[Any, ...], list[int]] = {}
        for form, graph in graphs.items():
            unused = {key: list(places) for key, places in of_other_forms.items()}
            self.places[form] = []
            for weight in graph.weights:
                data = bytes_of(weight.values)
                key = (weight.values.dtype, weight.values.shape, hashlib.sha256(data).digest())
                if unused.get(key):
                    place = unused[key].pop(0)
                else:
                    place = self.size_bytes
                    self.arrays[place] = weight.values
                    self.size_bytes += len(data) + -len(data) % ALIGNMENT_BYTES
                    of_other_forms.setdefault(key, []).append(place)
                self.places[form].append(place)


def _stored(
    folder: Path,
    precision: Precision,
    graphs: Mapping[Form, LiftedGraph],
    layout: _Layout,
    found: Mapping[int, tuple[int, Packing]],
) -> dict[str, Any]:
    stored: dict[str, Any] = {}
    for form, graph in graphs.items():
        file = _graph_name(form, precision)
        rows = [
            [
                weight.name,
                weight.values.dtype.name,
                list(weight.values.shape),
                place,
                *found[place],
            ]
            for weight, place in zip(graph.weights, layout.places[form], strict=True)
        ]
        sha256 = write_graph(folder / file, graph.graph)
        stored[form] = {"file": file, "sha256": sha256, "weights": rows}
    return {"graphs": stored, "image_bytes": layout.size_bytes}


def _graph_name(form: Form, precision: Precision) -> str:
    return f"{form}-{precision}.onnx"


def read_gpu_manifest(folder: Path, weights_bytes: int) -> GpuManifest:
    """Read and check gpu.json; ``weights_bytes`` is the size of weights.bin. Raises
    AvatarInvalid."""
    try:
        data = read_limited(folder / GPU_MANIFEST_NAME, MAX_MANIFEST_BYTES)
        return _manifest(json.loads(data), weights_bytes)
    except FileNotFoundError:
        raise AvatarInvalid(f"compiled model: {GPU_MANIFEST_NAME} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {str(error)[:80]!r}"
        raise AvatarInvalid(f"compiled model: {GPU_MANIFEST_NAME} is damaged: {reason}") from None


def read_gpu_graph(folder: Path, graph: GpuGraph) -> bytes:
    """The bytes of a graph, checked against the manifest. Raises AvatarInvalid."""
    return read_graph_file(folder, graph.file, graph.sha256, GPU_MANIFEST_NAME)


class ImageSource:
    """Makes the image of a model from its mapped file. Threads may share it."""

    def __init__(self, folder: Path, model: GpuModel) -> None:
        """Maps the file. Raises AvatarInvalid."""
        self.size_bytes = model.image_bytes
        self._mapped = map_file(
            folder, model.source_file, model.source_size_bytes, GPU_MANIFEST_NAME
        )
        self._width = model.width
        self._as_it_is = model.precision == "half"
        self._weights = {
            weight.place_bytes: weight
            for graph in model.graphs.values()
            for weight in graph.weights
        }

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The image as it is in the file; of half precision only."""
        assert self._as_it_is
        return self._mapped

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Fill ``image``, ``size_bytes`` long."""
        if self._as_it_is:
            np.copyto(image, self._mapped)
            return
        for weight in self._weights.values():
            dtype = np.dtype(weight.element_type).newbyteorder("<")
            size = packed_size(weight.shape, weight.packing, self._width)
            source_end = weight.source_bytes + size * dtype.itemsize
            place_end = weight.place_bytes + math.prod(weight.shape) * dtype.itemsize
            unpack_into(
                image[weight.place_bytes : place_end].view(dtype),
                self._mapped[weight.source_bytes : source_end].view(dtype),
                weight.shape,
                weight.packing,
                self._width,
            )


def _manifest(fields: dict[str, Any], weights_bytes: int) -> GpuManifest:
    width = 1 + whole(fields["width"] - 1, 1023)
    models: dict[Precision, GpuModel] = {}
    for precision in PRECISIONS:
        stored = fields["models"].get(precision)
        if stored is None:
            continue
        image_bytes = whole(stored["image_bytes"], 1 << 40)
        source_bytes = image_bytes if precision == "half" else weights_bytes
        graphs: dict[Form, GpuGraph] = {}
        for form in FORMS:
            graph = stored["graphs"][form]
            if graph["file"] != _graph_name(form, precision):
                raise ValueError(f"file {graph['file']}")
            rows = tuple(_weight(row, image_bytes, source_bytes, width) for row in graph["weights"])
            graphs[form] = GpuGraph(graph["file"], str(graph["sha256"]), rows)
        models[precision] = GpuModel(
            precision,
            graphs,
            image_bytes,
            width,
            HALF_NAME if precision == "half" else _WEIGHTS_NAME,
            source_bytes,
        )
    reasons = {precision: str(fields["reasons"].get(precision, "")) for precision in PRECISIONS}
    return GpuManifest(models, reasons)


def _weight(row: list[Any], image_bytes: int, source_bytes: int, width: int) -> GpuWeight:
    name, kind, dims, place, source, packing = row
    shape = tuple(whole(dim, 1 << 40) for dim in dims)
    if kind not in ELEMENT_TYPES or packing not in PACKINGS:
        raise ValueError(f"weight of {kind}, {packing}")
    if packing != "plain" and len(shape) != (1 if packing == "padded" else 4):
        raise ValueError(f"weight of {len(shape)} dimensions, {packing}")
    itemsize = np.dtype(kind).itemsize
    for offset, end_bytes, count in (
        (place, image_bytes, math.prod(shape)),
        (source, source_bytes, packed_size(shape, packing, width)),
    ):
        whole(offset, end_bytes)
        if offset % ALIGNMENT_BYTES or offset + count * itemsize > end_bytes:
            raise ValueError(f"weight at {offset} of {end_bytes}")
    return GpuWeight(sys.intern(str(name)), kind, shape, place, source, packing)
