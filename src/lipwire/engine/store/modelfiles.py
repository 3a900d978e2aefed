"""A compiled model on disk: graphs, one file of weights, and ``model.json``, which is the map.

weights.bin (``files``) holds what the processor uses; an array that both forms use is there once.
"""

import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AvatarInvalid, Form, NotFound, StorageFailed
from lipwire.engine.forms import FORMS, MAX_FIXED_BATCH
from lipwire.engine.graphs import BuiltGraph
from lipwire.engine.store.files import (
    ALIGNMENT_BYTES,
    ELEMENT_TYPES,
    MAX_MANIFEST_BYTES,
    StoredWeight,
    WeightsFile,
    map_file,
    read_graph_file,
    read_limited,
    whole,
    write_graph,
)

MANIFEST_NAME: Final = "model.json"
WEIGHTS_NAME: Final = "weights.bin"


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """What model.json says of a network in one form ("pixels" or "floats"): the name of its ONNX
    ``file``, the SHA-256 of that file in hexadecimal digits, whether avatars can share the graph
    (``shared``), or the ``reason`` why not, and where each of its ``weights`` lies in the file of
    weights."""

    file: str
    sha256: str
    """SHA-256 of the graph's file; graphs of equal content share a session."""
    shared: bool
    reason: str
    """Why it is not shared; empty where it is."""
    weights: tuple[StoredWeight, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of model.json, which describes a network that was compiled for the processor.

    ``runtime`` says for which versions and kind of processor it was compiled (``runtime_key``),
    ``source_sha256`` is the SHA-256 of the ONNX file that it was made of. ``fixed_batch`` is the
    only batch size that it takes; None where any will do. ``parameters`` is how many numbers it has
    learned, ``weights_bytes`` the size of the file of weights. ``graphs`` describes its graph in
    each form ("pixels" and "floats").
    """

    runtime: str
    source_sha256: str
    fixed_batch: int | None
    parameters: int
    weights_bytes: int
    graphs: Mapping[Form, StoredGraph]


def write_compiled(
    folder: Path,
    graphs: Mapping[Form, BuiltGraph],
    *,
    runtime: str,
    source_sha256: str,
    fixed_batch: int | None,
    parameters: int,
) -> None:
    """Write all files of a network that was compiled for the processor into ``folder``, which has
    to exist: its graphs, its weights, and last the manifest, model.json, which describes them.

    ``graphs`` has the network in its two forms: "pixels", whose pictures are uint8, and "floats",
    whose are float32. ``runtime`` says what the files depend on besides their source
    (``runtime_key``), ``source_sha256`` is the SHA-256 of the network's ONNX file, in hexadecimal
    digits, ``fixed_batch`` the only batch size that it takes (None: any), and ``parameters`` how
    many numbers it has learned. Raises StorageFailed where a file cannot be written; what was
    written until then stays, for the caller to remove.
    """
    try:
        stored: dict[Form, StoredGraph] = {}
        with (folder / WEIGHTS_NAME).open("wb") as file:
            placed = WeightsFile(file)
            for form, built in graphs.items():
                weights = tuple(
                    StoredWeight(
                        weight.name,
                        weight.values.dtype.name,
                        weight.values.shape,
                        placed.place(weight.values),
                    )
                    for weight in built.weights
                )
                name = f"{form}.onnx"
                graph_sha256 = write_graph(folder / name, built.graph)
                stored[form] = StoredGraph(
                    name, graph_sha256, not built.reason, built.reason, weights
                )
            size_bytes = placed.size_bytes
        manifest = Manifest(runtime, source_sha256, fixed_batch, parameters, size_bytes, stored)
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest, default=_fields), "utf-8")
    except OSError as error:
        raise StorageFailed(f"the compiled model cannot be written: {error.strerror}") from None


def _fields(record: Manifest | StoredGraph | StoredWeight) -> dict[str, Any]:
    # Four times as quick as dataclasses.asdict, which copies whatever is inside.
    return {name: getattr(record, name) for name in record.__slots__}


def read_manifest(folder: Path) -> Manifest:
    """Read model.json in ``folder``, check it, and return its content. Raises NotFound where it is
    missing, AvatarInvalid where it is damaged or cannot be read."""
    try:
        data = read_limited(folder / MANIFEST_NAME, MAX_MANIFEST_BYTES)
        return _manifest(json.loads(data))
    except FileNotFoundError:
        raise NotFound(f"no compiled model: {MANIFEST_NAME} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {str(error)[:80]!r}"
        raise AvatarInvalid(f"compiled model: {MANIFEST_NAME} is damaged: {reason}") from None


def read_graph(folder: Path, graph: StoredGraph) -> bytes:
    """Return the ONNX file of ``graph`` in ``folder``, as bytes. Raises AvatarInvalid where it is
    missing, or its SHA-256 is not that of the manifest."""
    return read_graph_file(folder, graph.file, graph.sha256, MANIFEST_NAME)


def map_weights(folder: Path, manifest: Manifest) -> npt.NDArray[np.uint8] | None:
    """Return the file of weights in ``folder``, mapped into memory: (bytes,) uint8, read-only. None
    where it is empty. Raises AvatarInvalid where it is missing, cannot be read or is not
    ``manifest.weights_bytes`` long, MemoryError where this process has no room to map it."""
    mapped = map_file(folder, WEIGHTS_NAME, manifest.weights_bytes, MANIFEST_NAME)
    return mapped if mapped.size else None


def weight_views(
    mapped: npt.NDArray[np.uint8], graph: StoredGraph
) -> dict[str, npt.NDArray[np.generic]]:
    """Return the weights of ``graph`` by name: views of ``mapped``, the whole file of weights,
    (bytes,) uint8, in the shapes and types that the graph takes. Nothing is copied."""
    views: dict[str, npt.NDArray[np.generic]] = {}
    for weight in graph.weights:
        dtype = np.dtype(weight.element_type).newbyteorder("<")
        end_bytes = weight.offset_bytes + math.prod(weight.shape) * dtype.itemsize
        part = mapped[weight.offset_bytes : end_bytes]
        views[weight.name] = part.view(dtype).reshape(weight.shape)
    return views


def _manifest(fields: dict[str, Any]) -> Manifest:
    weights_bytes = whole(fields["weights_bytes"], 1 << 40)
    fixed = fields["fixed_batch"]
    graphs: dict[Form, StoredGraph] = {}
    for form in FORMS:
        graph = fields["graphs"][form]
        if graph["file"] != f"{form}.onnx":
            raise ValueError(f"file {graph['file']}")
        weights = tuple(_stored_weight(weight, weights_bytes) for weight in graph["weights"])
        graphs[form] = StoredGraph(
            graph["file"],
            str(graph["sha256"]),
            graph["shared"] is True,
            str(graph["reason"]),
            weights,
        )
    return Manifest(
        runtime=str(fields["runtime"]),
        source_sha256=_hexadecimal(fields["source_sha256"]),
        fixed_batch=None if fixed is None else 1 + whole(fixed - 1, MAX_FIXED_BATCH - 1),
        parameters=whole(fields["parameters"], 1 << 40),
        weights_bytes=weights_bytes,
        graphs=graphs,
    )


def _hexadecimal(value: object) -> str:
    """``value`` if it is a SHA-256: it becomes a part of paths."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError(f"SHA-256 {value}")
    return value


def _stored_weight(fields: dict[str, Any], weights_bytes: int) -> StoredWeight:
    shape = tuple(whole(dim, 1 << 40) for dim in fields["shape"])
    kind = str(fields["element_type"])
    if kind not in ELEMENT_TYPES:
        raise ValueError(f"element type {kind}")
    offset_bytes = whole(fields["offset_bytes"], weights_bytes)
    end_bytes = offset_bytes + math.prod(shape) * np.dtype(kind).itemsize
    if offset_bytes % ALIGNMENT_BYTES or end_bytes > weights_bytes:
        raise ValueError(f"weight at {offset_bytes}-{end_bytes} of {weights_bytes}")
    return StoredWeight(sys.intern(str(fields["name"])), kind, shape, offset_bytes)
