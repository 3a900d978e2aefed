"""A compiled model on disk: graphs, one file of weights, and ``model.json``, which is the map.

weights.bin holds arrays one after another, little endian, each at a multiple of 64 bytes (a cache
line, and the widest vector there is); an array that both forms use is there once.
"""

import hashlib
import json
import math
import mmap
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lipwire.domain import AvatarInvalid, NotFound, StorageFailed
from lipwire.engine.inspection import MAX_FIXED_BATCH
from lipwire.engine.optimising import BuiltGraph
from lipwire.engine.wrapping import FORMS, Form

ALIGNMENT_BYTES: Final = 64
MANIFEST_NAME: Final = "model.json"
WEIGHTS_NAME: Final = "weights.bin"

_ELEMENT_TYPES: Final = ("float16", "float32", "float64")
_MAX_MANIFEST_BYTES: Final = 1 << 24
_MAX_GRAPH_BYTES: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """Where one weight lies in weights.bin."""

    name: str
    element_type: str
    shape: tuple[int, ...]
    offset_bytes: int


@dataclass(frozen=True, slots=True)
class StoredGraph:
    """One form of the network."""

    file: str
    sha256: str
    """Of the graph's file: graphs of equal content share a session."""
    shared: bool
    reason: str
    """Why it is not shared; empty where it is."""
    weights: tuple[StoredWeight, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What model.json says."""

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
    """Write all files of a compiled model into ``folder``, the manifest last.

    Raises StorageFailed; what was written until then stays, for the caller to remove.
    """
    try:
        stored: dict[Form, StoredGraph] = {}
        with (folder / WEIGHTS_NAME).open("wb") as file:
            placed: dict[bytes, int] = {}
            end = 0
            for form, built in graphs.items():
                weights = []
                for weight in built.weights:
                    values = np.ascontiguousarray(weight.values)
                    if sys.byteorder == "big":
                        values = values.astype(values.dtype.newbyteorder("<"))
                    data = values.tobytes()
                    digest = hashlib.sha256(data).digest()
                    if digest not in placed:
                        placed[digest] = end
                        file.write(data)
                        padding = -len(data) % ALIGNMENT_BYTES
                        file.write(bytes(padding))
                        end += len(data) + padding
                    kind = weight.values.dtype.name
                    offset = placed[digest]
                    weights.append(StoredWeight(weight.name, kind, weight.values.shape, offset))
                name = f"{form}.onnx"
                (folder / name).write_bytes(built.graph)
                graph_sha256 = hashlib.sha256(built.graph).hexdigest()
                stored[form] = StoredGraph(
                    name, graph_sha256, not built.reason, built.reason, tuple(weights)
                )
        manifest = Manifest(runtime, source_sha256, fixed_batch, parameters, end, stored)
        (folder / MANIFEST_NAME).write_text(json.dumps(asdict(manifest), indent=1), "utf-8")
    except OSError as error:
        raise StorageFailed(f"the compiled model cannot be written: {error.strerror}") from None


def read_manifest(folder: Path) -> Manifest:
    """Read and check model.json. Raises NotFound, AvatarInvalid."""
    try:
        data = _read(folder / MANIFEST_NAME, _MAX_MANIFEST_BYTES)
        return _manifest(json.loads(data))
    except FileNotFoundError:
        raise NotFound(f"no compiled model: {MANIFEST_NAME} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {str(error)[:80]!r}"
        raise AvatarInvalid(f"compiled model: {MANIFEST_NAME} is damaged: {reason}") from None


def read_graph(folder: Path, graph: StoredGraph) -> bytes:
    """The bytes of a graph, checked against the manifest. Raises AvatarInvalid."""
    try:
        data = _read(folder / graph.file, _MAX_GRAPH_BYTES)
    except FileNotFoundError:
        raise AvatarInvalid(f"compiled model: {graph.file} is missing") from None
    if hashlib.sha256(data).hexdigest() != graph.sha256:
        raise AvatarInvalid(f"compiled model: {graph.file} is not what {MANIFEST_NAME} says it is")
    return data


def map_weights(folder: Path, manifest: Manifest) -> npt.NDArray[np.uint8] | None:
    """The file of weights, mapped and read-only; None where it is empty.

    Nothing is copied; the system is asked to read ahead what its page cache does not hold. Raises
    AvatarInvalid.
    """
    try:
        with (folder / WEIGHTS_NAME).open("rb") as file:
            seen_bytes = os.fstat(file.fileno()).st_size
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if seen_bytes else None
        if seen_bytes != manifest.weights_bytes:
            raise AvatarInvalid(
                f"compiled model: {WEIGHTS_NAME} has {seen_bytes} bytes, {MANIFEST_NAME} says"
                f" {manifest.weights_bytes}"
            )
        if mapped is None:
            return None
        if hasattr(mmap, "MADV_WILLNEED"):
            mapped.madvise(mmap.MADV_WILLNEED)
        return np.frombuffer(mapped, np.uint8)
    except FileNotFoundError:
        raise AvatarInvalid(f"compiled model: {WEIGHTS_NAME} is missing") from None
    except OSError as error:
        raise AvatarInvalid(
            f"compiled model: {WEIGHTS_NAME} cannot be read: {error.strerror}"
        ) from None


def weight_views(
    mapped: npt.NDArray[np.uint8], graph: StoredGraph
) -> dict[str, npt.NDArray[np.generic]]:
    """The weights of one form, as views of the mapped file."""
    views: dict[str, npt.NDArray[np.generic]] = {}
    for weight in graph.weights:
        dtype = np.dtype(weight.element_type).newbyteorder("<")
        end_bytes = weight.offset_bytes + math.prod(weight.shape) * dtype.itemsize
        part = mapped[weight.offset_bytes : end_bytes]
        views[weight.name] = part.view(dtype).reshape(weight.shape)
    return views


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit_bytes + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AvatarInvalid(
            f"compiled model: {path.name} cannot be read: {error.strerror}"
        ) from None
    if len(data) > limit_bytes:
        raise AvatarInvalid(
            f"compiled model: {path.name} has more than {limit_bytes} bytes, which is the most"
        )
    return data


def _manifest(fields: dict[str, Any]) -> Manifest:
    weights_bytes = _whole(fields["weights_bytes"], 1 << 40)
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
        source_sha256=str(fields["source_sha256"]),
        fixed_batch=None if fixed is None else 1 + _whole(fixed - 1, MAX_FIXED_BATCH - 1),
        parameters=_whole(fields["parameters"], 1 << 40),
        weights_bytes=weights_bytes,
        graphs=graphs,
    )


def _stored_weight(fields: dict[str, Any], weights_bytes: int) -> StoredWeight:
    shape = tuple(_whole(dim, 1 << 40) for dim in fields["shape"])
    kind = str(fields["element_type"])
    if kind not in _ELEMENT_TYPES:
        raise ValueError(f"element type {kind}")
    offset_bytes = _whole(fields["offset_bytes"], weights_bytes)
    end_bytes = offset_bytes + math.prod(shape) * np.dtype(kind).itemsize
    if offset_bytes % ALIGNMENT_BYTES or end_bytes > weights_bytes:
        raise ValueError(f"weight at {offset_bytes}-{end_bytes} of {weights_bytes}")
    return StoredWeight(sys.intern(str(fields["name"])), kind, shape, offset_bytes)


def _whole(value: object, most: int) -> int:
    """A whole number from 0 to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a whole number from 0 to {most}")
    return value
