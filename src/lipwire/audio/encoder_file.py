"""The audio encoder's ONNX file, read with suspicion: it may come from anybody."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lipwire.domain import AvatarInvalid

MAX_BYTES: Final = 1 << 30
"""The family's encoder takes 11 MB; protobuf itself ends at 2 GB."""


def read_encoder_file(path: Path) -> bytes | str:
    """What ONNX Runtime opens: the file's bytes, or its path where weights lie in files beside it.

    Raises AvatarInvalid where the file is missing, not readable, too long or no ONNX model, and
    where a tensor's external data is not a plain file inside the model's folder.
    """
    try:
        if not path.is_file():
            raise AvatarInvalid(f"audio encoder {path} is missing or not a file")
        size = path.stat().st_size
        if not 0 < size <= MAX_BYTES:
            raise AvatarInvalid(f"audio encoder {path} has {size} bytes; allowed: 1 to {MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise AvatarInvalid(f"audio encoder {path} cannot be read: {error.strerror}") from error
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise AvatarInvalid(f"audio encoder {path} is no ONNX model, or a damaged one") from error
    if not model.graph.node:
        raise AvatarInvalid(f"audio encoder {path} is no ONNX model, or an empty one")
    locations = {location for tensor in _tensors(model) for location in _external(tensor)}
    for location in sorted(locations):
        _check_location(path, location)
    return str(path) if locations else data


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_tensors(graph)


def _external(tensor: onnx.TensorProto) -> Iterator[str]:
    """Where this tensor's data lies outside the file, if it does."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        yield entries.get("location", "")


def _check_location(path: Path, location: str) -> None:
    folder = path.parent.resolve()
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
    target = folder if absolute or "\0" in location else (folder / location).resolve()
    if target == folder or folder not in target.parents:
        raise AvatarInvalid(
            f"audio encoder {path} keeps weights at {location!r}; "
            "allowed: files inside the model's folder"
        )
    if not target.is_file():
        raise AvatarInvalid(f"audio encoder {path} keeps weights at {location!r}, which is missing")
